//! The host functions against the real kernel, in network namespaces and control groups of their own. Needs root.

mod addresses;
mod checks;
mod discovery;
mod links;
mod namespace;
mod pause;
mod processes;
mod scripts;
mod silence;
mod sockets;
mod tap;
mod wire;
