//! What a module is: a directory with `module.toml`, scripts in `bin/` and files of its own, judged without touching a
//! machine.
//!
//! [`Definition::parse`] reads it and tells everything that is wrong at once. [`Files::pack`] makes one piece of the
//! files for the replicated state. [`diff`] tells an operator what a new definition changes, and when.
#![forbid(unsafe_code)]

mod action;
mod check;
mod definition;
mod diff;
mod files;
mod finding;
mod macros;
mod process;
mod reader;
mod rule;
mod settings;
mod template;
mod traffic;
mod tree;
mod units;

pub use action::Action;
pub use check::{CHECKS, Check, Probe, RangeInclusiveStatus, Target, When};
pub use definition::{Boot, CALLED, Definition, Scripts};
pub use diff::{Change, Effect, diff};
pub use files::{Damaged, FILE_BYTES, FILES, File, Files, PACKED_BYTES, TOTAL_BYTES};
pub use finding::Finding;
pub use process::{PROCESSES, Process, Scope, What};
pub use rule::{RULES, Rule};
pub use template::{TEMPLATES, template};
