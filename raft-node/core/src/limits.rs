//! How much one cluster may hold: what the filter's table has room for.

use farm_common::layout;

/// Members; index 0 of the table names nobody.
pub const NODES: usize = layout::NODES - 1;
/// Modules, each with a table of its own.
pub const MODULES: usize = layout::MODULES;
/// Virtual IPs of all modules.
pub const VIPS: usize = layout::VIPS;
/// Services of all modules.
pub const SERVICES: usize = layout::SERVICES;
/// Interfaces of a node that carry virtual IPs.
pub const LINKS: usize = layout::LINKS;
/// Bytes of a name: a DNS label (RFC 1035 §2.3.4), which node and module names may become.
pub const NAME: usize = 63;
