//! The kernel's neighbour table: the hardware address of an on-link host.

use std::net::IpAddr;
use std::time::Duration;

use futures::StreamExt;
use netlink_packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use rtnetlink::{Handle, MulticastGroup};

use crate::watch::{Notice, Watch};
use crate::{Error, Mac, Netlink};

/// An entry that has a hardware address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Neighbour {
    /// The link it is on.
    pub ifindex: u32,
    /// Its hardware address, as last heard.
    pub mac: Mac,
}

/// The entry for `ip` on link `ifindex` in the kernel's table, if it holds a hardware address; asks
/// nobody. Of a link-local address every link may have a holder of its own.
///
/// # Errors
/// [`Error::System`] when the dump is refused.
pub async fn lookup(netlink: &Netlink, ifindex: u32, ip: IpAddr) -> Result<Option<Neighbour>, Error> {
    let entries = move |handle: &Handle| handle.neighbours().get().set_address_family(family(ip)).execute();
    let entries = netlink.dump(|| "list the neighbours".into(), entries).await?;
    Ok(entries.iter().find_map(|entry| reachable(entry, ifindex, ip)))
}

/// The entry for `ip` on link `ifindex`; if there is none, makes the kernel ask on the wire and
/// waits for the answer. `None` when nobody answers: the kernel gives up after about three
/// seconds, we after `timeout`.
///
/// # Errors
/// [`Error::System`]: no `CAP_NET_ADMIN`, the link is gone, or it is down.
pub async fn resolve(
    netlink: &Netlink,
    ifindex: u32,
    ip: IpAddr,
    timeout: Duration,
) -> Result<Option<Neighbour>, Error> {
    // First subscribe, then look, then ask: no answer can slip through.
    let mut watch = Watch::open(&[MulticastGroup::Neigh])?;
    if let Some(known) = lookup(netlink, ifindex, ip).await? {
        return Ok(Some(known));
    }
    solicit(netlink, ifindex, ip).await?;
    match tokio::time::timeout(timeout, outcome(&mut watch, ifindex, ip)).await {
        Ok(outcome) => outcome,
        Err(_elapsed) => Ok(None),
    }
}

/// As `ip neigh add IP dev X use` does: the kernel resolves as if there were traffic.
async fn solicit(netlink: &Netlink, ifindex: u32, ip: IpAddr) -> Result<(), Error> {
    let action = || format!("ask for the neighbour {ip}");
    let request = netlink.handle(action)?.neighbours().add(ifindex, ip).replace();
    let asked = request.state(NeighbourState::None).flags(NeighbourFlags::Use).execute().await;
    asked.map_err(|e| Error::rtnetlink(action(), e))
}

async fn outcome(watch: &mut Watch, ifindex: u32, ip: IpAddr) -> Result<Option<Neighbour>, Error> {
    while let Some(notice) = watch.next().await {
        // A lost notice is as good as no answer: the caller's timeout ends the wait.
        let Notice::Change(RouteNetlinkMessage::NewNeighbour(entry)) = notice else {
            continue;
        };
        if names(&entry, ifindex, ip) && entry.header.state == NeighbourState::Failed {
            return Ok(None);
        }
        if let Some(neighbour) = reachable(&entry, ifindex, ip) {
            return Ok(Some(neighbour));
        }
    }
    Err(Error::Closed { action: format!("wait for the neighbour {ip}") })
}

/// The entry as a neighbour, if it is about `ip` and its hardware address counts.
fn reachable(entry: &NeighbourMessage, ifindex: u32, ip: IpAddr) -> Option<Neighbour> {
    let resolved = !matches!(
        entry.header.state,
        NeighbourState::None | NeighbourState::Incomplete | NeighbourState::Failed
    );
    let mac = entry.attributes.iter().find_map(|a| match a {
        NeighbourAttribute::LinkLayerAddress(bytes) => Mac::try_from(bytes.as_slice()).ok(),
        _ => None,
    })?;
    (resolved && names(entry, ifindex, ip)).then_some(Neighbour { ifindex, mac })
}

fn names(entry: &NeighbourMessage, ifindex: u32, ip: IpAddr) -> bool {
    let wanted = NeighbourAttribute::Destination(NeighbourAddress::from(ip));
    entry.header.ifindex == ifindex && entry.attributes.contains(&wanted)
}

fn family(ip: IpAddr) -> AddressFamily {
    match ip {
        IpAddr::V4(_) => AddressFamily::Inet,
        IpAddr::V6(_) => AddressFamily::Inet6,
    }
}
