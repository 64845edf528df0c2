//! A service in a network namespace behind each node, which translates the address, as container runtimes do.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use anyhow::Result;
use farm_lab::{Lab, NetNs, Place, shell};

/// The node's end of the cable, and the inner one; the same behind every node.
const ENDS: [IpAddr; 2] =
    [IpAddr::V4(Ipv4Addr::new(10, 200, 0, 1)), IpAddr::V4(Ipv4Addr::new(10, 200, 0, 2))];
const ENDS6: [IpAddr; 2] = [
    IpAddr::V6(Ipv6Addr::new(0xfd00, 0x200, 0, 0, 0, 0, 0, 1)),
    IpAddr::V6(Ipv6Addr::new(0xfd00, 0x200, 0, 0, 0, 0, 0, 2)),
];

/// The namespaces; they live as long as this value.
#[derive(Debug)]
pub struct Inner(Vec<(Place, NetNs)>);

impl Inner {
    /// One behind each node of `lab`, to which TCP for `service` goes.
    ///
    /// # Errors
    /// `ip` or `nft` refuses.
    pub fn behind(lab: &Lab, service: SocketAddr) -> Result<Self> {
        let mut all = Self(Vec::new());
        // Duplicate address detection would keep an IPv6 address from being used for a second.
        let ([own, inside], length, nodad, family, forwarding) = match service {
            SocketAddr::V4(_) => (ENDS, 24, "", "ip", "net/ipv4/ip_forward"),
            SocketAddr::V6(_) => (ENDS6, 64, " nodad", "ip6", "net/ipv6/conf/all/forwarding"),
        };
        for node in lab.nodes() {
            let outer = lab.namespace(node);
            let inner = NetNs::named(format!("{}-in", outer.name()));
            inner.create()?;
            all.0.push((node, inner.clone()));
            outer.ip(&format!(
                "link add inner type veth peer name eth0 netns {}\naddress add {own}/{length} dev inner{nodad}\n\
                 link set inner up\n",
                inner.name()
            ))?;
            inner.ip(&format!(
                "address add {inside}/{length} dev eth0{nodad}\nlink set eth0 up\nroute add default via {own}\n"
            ))?;
            outer.sysctl(&[(forwarding, "1")])?;
            let (vip, port, to) = (service.ip(), service.port(), SocketAddr::new(inside, service.port()));
            let rules = format!(
                "table {family} published {{\nchain in {{\ntype nat hook prerouting priority dstnat\n\
                 {family} daddr {vip} tcp dport {port} dnat to {to}\n}}\n}}\n"
            );
            shell::feed(lab.command(node, "nft")?.args(["-f", "-"]), &rules)?;
        }
        Ok(all)
    }

    /// Each node with the namespace behind it.
    pub fn namespaces(&self) -> impl Iterator<Item = (Place, NetNs)> + '_ {
        self.0.iter().cloned()
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        for (node, namespace) in &self.0 {
            if let Err(e) = namespace.delete() {
                eprintln!("the namespace behind {node} stays: {e:#}");
            }
        }
    }
}
