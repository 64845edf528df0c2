//! Chaos: one vocabulary of faults ([`nemesis`]), one set of properties ([`invariant`]), and the worlds in which the
//! one meets the other.
//!
//! [`world::sim`] is a simulation of a whole cluster in one thread and in virtual time. It runs the machines of
//! `farm-core` as they are shipped, around an abstract replicated log and a fake filter that asks `farm-common`. A
//! [`schedule::Schedule`] is drawn from a seed and holds everything that will go wrong, so that a run can be
//! repeated, byte for byte, from its seed.
#![forbid(unsafe_code)]

pub mod campaign;
pub mod coverage;
pub mod invariant;
pub mod model;
pub mod nemesis;
pub mod schedule;
pub mod world;
