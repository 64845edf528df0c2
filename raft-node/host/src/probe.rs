//! Is an address in use on the link? (RFC 5227 §2.1, RFC 4862 §5.4)

use std::io;
use std::net::IpAddr;
use std::time::Duration;

use tokio::time::{Instant, interval_at, timeout_at};

use crate::arp::ArpPacket;
use crate::ndp::NdpPacket;
use crate::packet::{FRAME_MAX, Tap};
use crate::{Error, Mac};

/// `PROBE_NUM` of RFC 5227: a single broadcast frame may be lost.
const PROBES: u32 = 3;

/// Asks the link of `ifindex`, whose address is `mac`, who has `ip`; the hardware address of the
/// first host that shows it has it, `None` if nobody does within `timeout`, over which three
/// probes are spread. No host's table of neighbours changes.
///
/// A host that merely probes for the same address at the same time is no holder: two nodes of a
/// farm may check the same virtual IP at once.
///
/// A holder of an IPv6 address answers to all nodes of the link, so that no multicast group has to
/// be joined for it.
///
/// # Errors
/// [`Error::System`]: no `CAP_NET_RAW`, or the link is down or gone.
pub async fn address_in_use(
    ifindex: u32,
    mac: Mac,
    ip: IpAddr,
    timeout: Duration,
) -> Result<Option<Mac>, Error> {
    let fail = |e| Error::system(format!("probe for {ip} on interface {ifindex}"), e);
    let tap = tap(ifindex, ip).map_err(fail)?;
    let probe = probe(mac, ip);
    let start = Instant::now();
    let mut ticks = interval_at(start, (timeout / PROBES).max(Duration::from_millis(1)));
    let search = async {
        loop {
            tokio::select! {
                holder = holder_of(&tap, ip, mac) => return holder,
                _ = ticks.tick() => tap.send(&probe)?,
            }
        }
    };
    match timeout_at(start + timeout, search).await {
        Ok(holder) => holder.map(Some).map_err(fail),
        Err(_elapsed) => Ok(None),
    }
}

fn tap(ifindex: u32, ip: IpAddr) -> io::Result<Tap> {
    match ip {
        IpAddr::V4(_) => Tap::arp(ifindex),
        IpAddr::V6(_) => Tap::advertisements(ifindex),
    }
}

fn probe(mac: Mac, ip: IpAddr) -> Vec<u8> {
    match ip {
        IpAddr::V4(ip) => ArpPacket::probe(mac, ip).to_bytes().to_vec(),
        IpAddr::V6(ip) => NdpPacket::probe(mac, ip).to_bytes(),
    }
}

/// Waits for a frame whose sender claims `ip` with another hardware address than ours.
async fn holder_of(tap: &Tap, ip: IpAddr, own: Mac) -> io::Result<Mac> {
    let mut frame = [0; FRAME_MAX];
    loop {
        let length = tap.receive(&mut frame).await?;
        if let Some(mac) = claimed(&frame[..length], ip).filter(|mac| *mac != own) {
            return Ok(mac);
        }
    }
}

/// Where `ip` is, by the word of `frame`'s sender.
fn claimed(frame: &[u8], ip: IpAddr) -> Option<Mac> {
    match ip {
        IpAddr::V4(ip) => ArpPacket::parse(frame).filter(|p| p.sender_ip == ip).map(|p| p.sender_mac),
        IpAddr::V6(ip) => NdpPacket::parse(frame).filter(|p| p.target_ip == ip)?.advertised(),
    }
}
