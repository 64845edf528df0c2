//! Tests of the core from outside.

mod apply;
mod arbiter;
mod assignment;
mod drill;
mod elector;
mod holder;
mod life;
mod planner;
#[cfg(feature = "planted")]
mod planted;
mod reconcile;
mod render;
mod rule;
mod survival;
mod transcript;
mod world;
