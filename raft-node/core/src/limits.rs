//! How much one cluster may hold: what the filter's table has room for.

use farm_common::layout;

use crate::time::Span;

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
/// Longest drain of a module: a change that is open for longer than a day is forgotten by people.
pub const DRAIN: Span = Span::seconds(24 * 3600);
/// Bytes of a module's definition, packed.
pub const DEFINITION: usize = 1 << 20;
/// Bytes of all definitions that are kept: they are in every snapshot, which a node that joins gets at once.
pub const DEFINITIONS: usize = 32 << 20;
/// Definitions of a module that are kept.
pub const REVISIONS: usize = 4;
/// Bytes of the reason of a maintenance: a line of a terminal, twice.
pub const REASON: usize = 200;
/// Bytes of a name: a DNS label (RFC 1035 §2.3.4), which node and module names may become.
pub const NAME: usize = 63;
