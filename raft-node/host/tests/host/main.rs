//! The host functions against the real kernel, in network namespaces of their own. Needs root.

mod addresses;
mod links;
mod namespace;
mod sockets;
mod wire;
