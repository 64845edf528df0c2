//! Fields that are text or plain bytes on the wire and more than that in the core.

use std::net::IpAddr;

use farm_core::id::NodeId;
use farm_core::model::{BUCKETS, BucketSet, ModuleName, VirtualIp, Vlan};
use ipnet::IpNet;

use super::WireError;

/// Longest name of a node or a module, in bytes (the limit of a DNS label).
const NAME_MAX: usize = 63;
/// What a VLAN may be.
const VLAN: &str = "1 to 4094, or two of them as OUTER.INNER";

pub(crate) fn ip(field: &'static str, text: &str) -> Result<IpAddr, WireError> {
    text.parse().map_err(|_| WireError::invalid(field, text, "an IP address"))
}

/// A virtual IP from its two fields.
pub(super) fn vip(field: &'static str, ip: &str, vlan: &str) -> Result<VirtualIp, WireError> {
    Ok(VirtualIp { ip: self::ip(field, ip)?, vlan: self::vlan(field, vlan)? })
}

/// Empty for none.
pub(super) fn vlan(field: &'static str, text: &str) -> Result<Vlan, WireError> {
    match text {
        "" => Ok(Vlan::NONE),
        text => text.parse().map_err(|_| WireError::invalid(field, format!("vlan {text:?}"), VLAN)),
    }
}

/// The field that [`vlan`] reads.
pub(super) fn of_vlan(vlan: Vlan) -> String {
    if vlan.is_none() { String::new() } else { vlan.to_string() }
}

pub(super) fn prefixed(field: &'static str, text: &str) -> Result<(IpAddr, u8), WireError> {
    let net: IpNet =
        text.parse().map_err(|_| WireError::invalid(field, text, "an IP address with a prefix length"))?;
    Ok((net.addr(), net.prefix_len()))
}

pub(crate) fn array<const N: usize>(field: &'static str, bytes: &[u8]) -> Result<[u8; N], WireError> {
    bytes
        .try_into()
        .map_err(|_| WireError::invalid(field, format!("{} bytes long", bytes.len()), length_rule(N)))
}

fn length_rule(n: usize) -> &'static str {
    match n {
        6 => "6 bytes long",
        16 => "16 bytes long",
        _ => "as long as its comment says",
    }
}

pub(super) fn u16(field: &'static str, value: u32) -> Result<u16, WireError> {
    u16::try_from(value).map_err(|_| WireError::invalid(field, value, "at most 65535"))
}

pub(super) fn port(field: &'static str, value: u32) -> Result<u16, WireError> {
    match u16(field, value)? {
        0 => Err(WireError::invalid(field, value, "1 to 65535")),
        port => Ok(port),
    }
}

pub(super) fn node(field: &'static str, id: u64) -> Result<NodeId, WireError> {
    maybe_node(id).ok_or(WireError::Missing { field })
}

/// Id 0 is nobody.
pub(super) fn maybe_node(id: u64) -> Option<NodeId> {
    (id != 0).then_some(NodeId(id))
}

pub(super) fn name(field: &'static str, text: String) -> Result<String, WireError> {
    if text.is_empty() || text.len() > NAME_MAX {
        return Err(WireError::invalid(field, format!("{text:?}"), "1 to 63 bytes long"));
    }
    Ok(text)
}

pub(super) fn module(field: &'static str, text: String) -> Result<ModuleName, WireError> {
    let label = text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
    let lettered = text.starts_with(|c: char| c.is_ascii_lowercase());
    if !label || !lettered || text.len() > NAME_MAX {
        return Err(WireError::invalid(field, format!("{text:?}"), "1 to 63 of a-z 0-9 -, a letter first"));
    }
    Ok(ModuleName(text))
}

pub(super) fn buckets(field: &'static str, bytes: &[u8]) -> Result<BucketSet, WireError> {
    if bytes.len() != BUCKETS / 8 {
        return Err(WireError::invalid(
            field,
            format!("{} bytes long", bytes.len()),
            "a bitmap over all buckets",
        ));
    }
    Ok(BucketSet::from_bytes(bytes.to_vec()))
}
