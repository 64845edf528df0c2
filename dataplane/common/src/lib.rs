//! What kernel and user space share, written once.
#![no_std]
#![forbid(unsafe_code)]

pub mod layout;
