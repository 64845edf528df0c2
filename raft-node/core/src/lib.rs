//! The pure core of Farm.
//!
//! Every machine here is a plain value: it is told what happened and the time, and returns what is to be done. It
//! has no clock, no socket, no file, no thread and no randomness, so that a simulation or a model checker can run
//! the very code that is shipped.
#![forbid(unsafe_code)]

/// Whether a bug of [`planted`] is active; always false, and no code, without the feature.
#[cfg(feature = "planted")]
macro_rules! planted {
    ($bug:ident) => {
        $crate::planted::is_planted($crate::planted::Bug::$bug)
    };
}
#[cfg(not(feature = "planted"))]
macro_rules! planted {
    ($bug:ident) => {
        false
    };
}

pub mod apply;
pub mod arbiter;
pub mod assignment;
pub mod chronicle;
pub mod command;
pub mod condition;
pub mod controller;
pub mod drill;
pub mod electors;
pub mod event;
pub mod id;
pub mod incident;
pub mod lease;
pub mod life;
pub mod limits;
pub mod model;
pub mod notice;
pub mod planner;
#[cfg(feature = "planted")]
pub mod planted;
pub mod resource;
pub mod restart;
pub mod rule;
pub mod state;
pub mod survival;
pub mod table;
pub mod tiebreak;
pub mod time;
