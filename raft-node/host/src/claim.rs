//! Who says on a link that he has an address: ARP packets by their sender, neighbour advertisements by their target.

use std::io;
use std::net::IpAddr;

use crate::arp::ArpPacket;
use crate::ndp::NdpPacket;
use crate::packet::{FRAME_MAX, Tap};
use crate::{Error, Mac};

/// Somebody has an address, by his own word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Claim {
    /// The address.
    pub ip: IpAddr,
    /// Where he says it is.
    pub mac: Mac,
}

/// Hears the claims that come in on one link, from its opening on.
pub struct Claims {
    ifindex: u32,
    arp: Tap,
    advertisements: Tap,
}

impl Claims {
    /// Listens on `ifindex`. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// [`Error::System`]: no `CAP_NET_RAW`, or the link is gone.
    pub fn open(ifindex: u32) -> Result<Self, Error> {
        let fail = |e| Error::system(format!("listen for claims on interface {ifindex}"), e);
        let (arp, advertisements) =
            (Tap::arp(ifindex).map_err(fail)?, Tap::advertisements(ifindex).map_err(fail)?);
        Ok(Self { ifindex, arp, advertisements })
    }

    /// The next claim. Nothing is lost when it is cancelled.
    ///
    /// # Errors
    /// [`Error::System`]: the link is down or gone.
    pub async fn next(&self) -> Result<Claim, Error> {
        let (mut arp, mut advertisement) = ([0; FRAME_MAX], [0; FRAME_MAX]);
        loop {
            let received: io::Result<Option<Claim>> = tokio::select! {
                length = self.arp.receive(&mut arp) => length.map(|length| in_arp(&arp[..length])),
                length = self.advertisements.receive(&mut advertisement) => {
                    length.map(|length| in_advertisement(&advertisement[..length]))
                }
            };
            let fail = |e| Error::system(format!("hear claims on interface {}", self.ifindex), e);
            if let Some(claim) = received.map_err(fail)? {
                return Ok(claim);
            }
        }
    }

    /// Asks the link who has `ip`; whoever has it claims it then. `own` is the link's address. Nobody's table of
    /// neighbours changes.
    ///
    /// # Errors
    /// [`Error::System`]: the link is down or gone.
    pub fn ask(&self, own: Mac, ip: IpAddr) -> Result<(), Error> {
        let sent = match ip {
            IpAddr::V4(ip) => self.arp.send(&ArpPacket::probe(own, ip).to_bytes()),
            IpAddr::V6(ip) => self.advertisements.send(&NdpPacket::probe(own, ip).to_bytes()),
        };
        sent.map_err(|e| Error::system(format!("ask for {ip} on interface {}", self.ifindex), e))
    }
}

/// A probe has no sender.
fn in_arp(frame: &[u8]) -> Option<Claim> {
    let packet = ArpPacket::parse(frame).filter(|packet| !packet.sender_ip.is_unspecified())?;
    Some(Claim { ip: packet.sender_ip.into(), mac: packet.sender_mac })
}

fn in_advertisement(frame: &[u8]) -> Option<Claim> {
    let packet = NdpPacket::parse(frame)?;
    Some(Claim { ip: packet.target_ip.into(), mac: packet.advertised()? })
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use super::*;

    const MAC: Mac = [2, 0, 0, 0, 0, 9];
    const V4: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
    const V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1);

    #[test]
    fn who_announces_claims_and_who_probes_does_not() {
        let claim = Claim { ip: V4.into(), mac: MAC };
        assert_eq!(in_arp(&ArpPacket::gratuitous(MAC, V4, MAC).to_bytes()), Some(claim));
        assert_eq!(in_arp(&ArpPacket::probe(MAC, V4).to_bytes()), None);
        let claim = Claim { ip: V6.into(), mac: MAC };
        assert_eq!(in_advertisement(&NdpPacket::unsolicited(MAC, V6, MAC).to_bytes()), Some(claim));
        assert_eq!(in_advertisement(&NdpPacket::probe(MAC, V6).to_bytes()), None);
    }
}
