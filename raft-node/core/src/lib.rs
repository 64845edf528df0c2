//! The pure core of Farm.
#![forbid(unsafe_code)]

pub mod command;
pub mod id;
pub mod model;
pub mod time;
