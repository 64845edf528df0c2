//! Explicit-state models: every reachable state of something small, around the code that is shipped.

pub mod protocol;
pub mod two;
