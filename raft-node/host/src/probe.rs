//! Is an address in use on the link? (RFC 5227 §2.1)

use std::net::Ipv4Addr;
use std::time::Duration;

use tokio::time::{Instant, interval_at, timeout_at};

use crate::arp::ArpPacket;
use crate::packet::ArpTap;
use crate::{Error, Mac};

/// `PROBE_NUM` of RFC 5227: a single broadcast frame may be lost.
const PROBES: u32 = 3;

/// Asks the link of `ifindex`, whose address is `mac`, who has `ip`; the hardware address of the
/// first host that shows it has it, `None` if nobody does within `timeout`, over which three
/// probes are spread. No host's ARP table changes.
///
/// A host that merely probes for the same address at the same time is no holder: two nodes of a
/// farm may check the same virtual IP at once.
///
/// # Errors
/// [`Error::System`]: no `CAP_NET_RAW`, or the link is down or gone.
pub async fn address_in_use(
    ifindex: u32,
    mac: Mac,
    ip: Ipv4Addr,
    timeout: Duration,
) -> Result<Option<Mac>, Error> {
    let fail = |e| Error::system(format!("probe for {ip} on interface {ifindex}"), e);
    let tap = ArpTap::open(ifindex).map_err(fail)?;
    let start = Instant::now();
    let mut ticks = interval_at(start, (timeout / PROBES).max(Duration::from_millis(1)));
    let search = async {
        loop {
            tokio::select! {
                holder = holder_of(&tap, ip, mac) => return holder,
                _ = ticks.tick() => tap.send(&ArpPacket::probe(mac, ip))?,
            }
        }
    };
    match timeout_at(start + timeout, search).await {
        Ok(holder) => holder.map(Some).map_err(fail),
        Err(_elapsed) => Ok(None),
    }
}

/// Waits for a frame whose sender claims `ip` with another hardware address than ours.
async fn holder_of(tap: &ArpTap, ip: Ipv4Addr, own: Mac) -> std::io::Result<Mac> {
    loop {
        let packet = tap.receive().await?;
        if let Some(packet) = packet.filter(|p| p.sender_ip == ip && p.sender_mac != own) {
            return Ok(packet.sender_mac);
        }
    }
}
