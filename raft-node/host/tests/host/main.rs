//! The host functions against the real kernel, in network namespaces of their own. Needs root.

mod addresses;
mod discovery;
mod links;
mod namespace;
mod silence;
mod sockets;
mod tap;
mod wire;
