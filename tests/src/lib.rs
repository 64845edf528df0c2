//! What the end-to-end tests share: a farm in a lab, load under the eyes of the witness, connections whose data is
//! checked.
#![forbid(unsafe_code)]

pub mod browser;
pub mod chat;
pub mod container;
pub mod download;
pub mod farm;
pub mod fault;
pub mod inner;
pub mod load;
pub mod talk;
pub mod transfer;
pub mod vlan;
pub mod web;
