//! What must hold for every frame under every table, and the fuzz target that looks for one where it does not.
//!
//! `scripts/fuzz.sh` runs the target: some seconds in `make test`, as long as you like in `make fuzz`. What it finds
//! is written to `regressions/` and belongs into the repository with the cure: `tests/corpus.rs` holds every file
//! there against the properties, and the tests of the program against the kernel.
//!
//! | module | what |
//! |---|---|
//! | [`case`] | bytes of an input <-> a table and a frame |
//! | [`mod@check`] | the properties |
//! | [`naive`] | a second, slow look at a frame, to judge the judgement by |
//! | [`seeds`] | the oracle's frames as inputs, and what was found before |
#![forbid(unsafe_code)]

pub mod case;
pub mod check;
pub mod naive;
#[cfg(feature = "seeds")]
pub mod seeds;

pub use case::Case;
pub use check::{check, check_with};
