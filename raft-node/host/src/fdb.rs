//! The unicast filter of an interface, as `bridge fdb add MAC dev X self` changes it: the NIC then
//! receives frames for this address too. It persists without a process; remove it on stop. A lost
//! entry is an outage of flood mode, never an open door.

use netlink_packet_route::AddressFamily;
use netlink_packet_route::neighbour::{
    NeighbourAttribute, NeighbourFlags, NeighbourHeader, NeighbourMessage, NeighbourState,
};
use nix::errno::Errno;

use crate::{Error, Mac, Netlink, links};

/// Lets `ifname` receive frames for `mac`; nothing happens if it already does.
///
/// # Errors
/// [`Error::NoSuchInterface`]; [`Error::System`] when the device refuses or `CAP_NET_ADMIN` lacks.
pub async fn add_unicast(netlink: &Netlink, ifname: &str, mac: Mac) -> Result<(), Error> {
    let action = || format!("add a unicast filter entry to {ifname}");
    let link = links::by_name(netlink, ifname).await?;
    // Without EXCL (`replace`) the kernel takes an entry that exists as success.
    let request = netlink.handle(action)?.neighbours().add_bridge(link.ifindex, &mac).replace();
    let added = request.flags(NeighbourFlags::Own).execute().await;
    added.map_err(|e| Error::rtnetlink(action(), e))
}

/// Undoes [`add_unicast`]; nothing happens if there is no such entry.
///
/// # Errors
/// As [`add_unicast`].
pub async fn del_unicast(netlink: &Netlink, ifname: &str, mac: Mac) -> Result<(), Error> {
    let action = || format!("remove a unicast filter entry from {ifname}");
    let link = links::by_name(netlink, ifname).await?;
    let deleted = netlink.handle(action)?.neighbours().del(entry(link.ifindex, mac)).execute().await;
    match deleted.map_err(|e| Error::rtnetlink(action(), e)) {
        Err(e) if e.errno() == Some(Errno::ENOENT) => Ok(()),
        result => result,
    }
}

fn entry(ifindex: u32, mac: Mac) -> NeighbourMessage {
    let mut message = NeighbourMessage::default();
    message.header = NeighbourHeader {
        family: AddressFamily::Bridge,
        ifindex,
        state: NeighbourState::Permanent,
        flags: NeighbourFlags::Own,
        ..NeighbourHeader::default()
    };
    message.attributes.push(NeighbourAttribute::LinkLayerAddress(mac.to_vec()));
    message
}
