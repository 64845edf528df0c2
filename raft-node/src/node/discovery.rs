//! How the hosts on a link find the virtual IPs of this node: announcements, and the multicast groups in which they
//! ask for IPv6 addresses.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use farm_core::model::{Mode, VirtualIp};
use farm_host::Mac;
use farm_host::announce::{Announcer, Target};
use farm_host::links::LinkInfo;
use farm_host::multicast::Membership;

use super::desired::Carried;

/// What this node does to be found.
#[derive(Default)]
pub struct Discovery {
    announcer: Option<Arc<Announcer>>,
    /// One per virtual IPv6 address, with the link it is on.
    groups: BTreeMap<VirtualIp, (u32, Membership)>,
}

impl Discovery {
    /// Lets solicitations for `vip` in from `link`; nothing happens if they already come in, or for IPv4, whose
    /// requests are broadcast.
    ///
    /// # Errors
    /// When the link is gone or has no IPv6.
    pub fn join(&mut self, link: &LinkInfo, vip: VirtualIp) -> Result<(), farm_host::Error> {
        let IpAddr::V6(ip) = vip.ip else { return Ok(()) };
        if self.groups.get(&vip).is_some_and(|(ifindex, _)| *ifindex == link.ifindex) {
            return Ok(());
        }
        let membership = Membership::join(link.ifindex, ip)?;
        self.groups.insert(vip, (link.ifindex, membership));
        Ok(())
    }

    /// Undoes [`Discovery::join`].
    pub fn leave(&mut self, vip: VirtualIp) {
        self.groups.remove(&vip);
    }

    /// The announcements of all directed virtual IPs, naming this node; `links` are its service links.
    pub fn announcements(
        &mut self,
        links: &[LinkInfo],
        carried: &BTreeMap<VirtualIp, Carried>,
    ) -> Vec<Announcement> {
        let Some(announcer) = self.announcer() else { return Vec::new() };
        let directed = carried.iter().filter(|(_, c)| c.mode == Mode::Directed);
        directed
            .filter_map(|(vip, c)| {
                let LinkInfo { ifindex, mac, .. } = *links.get(c.link)?;
                Some(Announcement { announcer: announcer.clone(), ifindex, mac, vip: vip.ip })
            })
            .collect()
    }

    /// The socket for announcements; `None` where there is none, which is said once more each time.
    pub fn announcer(&mut self) -> Option<Arc<Announcer>> {
        if self.announcer.is_none() {
            self.announcer = Announcer::open()
                .map(Arc::new)
                .map_err(|error| tracing::warn!(%error, "no announcements"))
                .ok();
        }
        self.announcer.clone()
    }
}

/// One frame that names this node as the holder of a virtual IP.
pub struct Announcement {
    announcer: Arc<Announcer>,
    ifindex: u32,
    mac: Mac,
    vip: IpAddr,
}

impl Announcement {
    /// Sends it to everybody on the link.
    ///
    /// # Errors
    /// When the link is down or its queue is full.
    pub fn send(&self) -> Result<(), farm_host::Error> {
        self.announcer.announce(self.ifindex, self.mac, self.vip, self.mac, Target::Broadcast)
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv6Addr;

    use farm_core::model::Vlan;

    use super::*;

    const IP: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0x100);
    const VIP: VirtualIp = VirtualIp { ip: IpAddr::V6(IP), vlan: Vlan::NONE };

    #[test]
    fn a_group_is_joined_and_left() {
        let mut discovery = Discovery::default();
        for _twice in 0..2 {
            discovery.join(&loopback(), VIP).unwrap();
            assert_eq!(discovery.groups[&VIP].0, loopback().ifindex);
        }
        discovery.leave(VIP);
        assert!(discovery.groups.is_empty());
    }

    #[test]
    fn on_a_link_that_came_back_with_another_index_it_is_joined_anew() {
        let mut discovery = Discovery::default();
        discovery.groups.insert(VIP, (u32::MAX, Membership::join(loopback().ifindex, IP).unwrap()));
        discovery.join(&loopback(), VIP).unwrap();
        assert_eq!(discovery.groups[&VIP].0, loopback().ifindex);
    }

    #[test]
    fn a_link_that_is_gone_is_an_error() {
        let gone = LinkInfo { ifindex: i32::MAX as u32, ..loopback() };
        let mut discovery = Discovery::default();
        let error = discovery.join(&gone, VIP).unwrap_err();
        assert_eq!(error.errno(), Some(nix::errno::Errno::ENODEV));
        assert!(discovery.groups.is_empty());
    }

    #[test]
    fn ipv4_needs_no_group() {
        let mut discovery = Discovery::default();
        discovery.join(&loopback(), IpAddr::from([192, 0, 2, 1]).into()).unwrap();
        assert!(discovery.groups.is_empty());
    }

    /// The only link that every host has; nothing goes out there.
    fn loopback() -> LinkInfo {
        LinkInfo {
            ifindex: 1,
            name: "lo".into(),
            mac: Mac::default(),
            addresses: Vec::new(),
            driver: String::new(),
            mtu: 1500,
            up: true,
            carrier: true,
            loopback: true,
            vlan: None,
        }
    }
}
