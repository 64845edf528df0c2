//! Names and addresses of a lab: who is where.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use anyhow::{Error, Result, ensure};
use serde::{Deserialize, Serialize};

use crate::netns::NetNs;

/// Most nodes of one lab: their addresses, .11 to .26, stay clear of the client's.
pub const NODES_MAX: u8 = 16;
/// Longest name of a lab: `farm-<lab>-router` stays readable, and paths of sockets stay below 108 bytes.
const NAME_MAX: usize = 32;
/// Where the first virtual IP lies; more follow up to .127.
pub const FIRST_VIP: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 77, 0, 100));
/// The first virtual IP of IPv6, the [`twin`] of [`FIRST_VIP`].
pub const FIRST_VIP6: IpAddr = IpAddr::V6(Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, 0x100));
/// The addresses .128 to .250 of `client` and `remote` stand for as many clients.
pub const CROWD: std::ops::RangeInclusive<u8> = 128..=250;

/// The name of a lab: labs of different names share nothing.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct LabName(String);

impl LabName {
    /// `prefix` with the process id: unique among the labs that run now.
    ///
    /// # Errors
    /// As for parsing.
    pub fn unique(prefix: &str) -> Result<Self> {
        format!("{prefix}-{}", std::process::id()).parse()
    }

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for LabName {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let legal = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        let ok = !text.is_empty() && text.len() <= NAME_MAX && text.chars().all(legal);
        ensure!(ok, "lab name {text:?}: 1 to {NAME_MAX} of a-z, 0-9 and -");
        Ok(Self(text.to_owned()))
    }
}

impl TryFrom<String> for LabName {
    type Error = Error;
    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}

impl From<LabName> for String {
    fn from(name: LabName) -> Self {
        name.0
    }
}

impl fmt::Display for LabName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// An address family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// That of an address.
    #[must_use]
    pub fn of(ip: IpAddr) -> Self {
        if ip.is_ipv4() { Self::V4 } else { Self::V6 }
    }

    /// `ip` or its [`twin`].
    fn pick(self, ip: Ipv4Addr) -> IpAddr {
        match self {
            Self::V4 => ip.into(),
            Self::V6 => twin(ip).into(),
        }
    }
}

/// The IPv6 address that goes with an IPv4 one of the lab: network and host in the same digits, as 10.77.0.12 and
/// `fd77::12`. The networks are 64 bits long.
#[must_use]
pub fn twin(ip: Ipv4Addr) -> Ipv6Addr {
    let [_, net, _, host] = ip.octets();
    let digits =
        |byte: u8| u16::from_str_radix(&byte.to_string(), 16).expect("decimal digits are hex digits");
    Ipv6Addr::new(0xfd00 | digits(net), 0, 0, 0, 0, 0, 0, digits(host))
}

/// A machine of the lab.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Place {
    /// A server of the farm, counted from 1.
    Node(u8),
    /// A client on the same link.
    Client,
    /// Forwards between the link and `remote`.
    Router,
    /// A client behind the router.
    Remote,
    /// The switch: one bridge per network, a port per cable.
    Switch,
}

impl Place {
    /// The nodes `1..=count`.
    pub fn nodes(count: u8) -> impl Iterator<Item = Self> {
        (1..=count).map(Self::Node)
    }

    /// Every machine of a lab of `nodes` nodes.
    pub fn all(nodes: u8) -> impl Iterator<Item = Self> {
        Self::nodes(nodes).chain([Self::Client, Self::Router, Self::Remote, Self::Switch])
    }

    /// Its namespace in the lab `lab`.
    #[must_use]
    pub fn namespace(self, lab: &LabName) -> NetNs {
        NetNs::named(format!("farm-{lab}-{self}"))
    }

    /// Last byte of its addresses on the link; `None` for those that are not on it.
    #[must_use]
    pub fn host(self) -> Option<u8> {
        match self {
            Self::Node(i) => Some(10 + i),
            Self::Client => Some(50),
            Self::Router => Some(1),
            Self::Remote | Self::Switch => None,
        }
    }

    /// Its main IPv4 address.
    ///
    /// # Panics
    /// For the switch, which has none.
    #[must_use]
    pub fn address(self) -> Ipv4Addr {
        match self.host() {
            Some(host) => Network::Lan.address(host),
            None => {
                assert!(self == Self::Remote, "the switch has no address");
                Ipv4Addr::new(10, 88, 0, 50)
            }
        }
    }

    /// Its main IPv6 address; as [`Place::address`].
    ///
    /// # Panics
    /// For the switch, which has none.
    #[must_use]
    pub fn address6(self) -> Ipv6Addr {
        twin(self.address())
    }

    /// Hardware address of its interface on `network`; `None` for those that are not on the link.
    #[must_use]
    pub fn mac(self, network: Network) -> Option<[u8; 6]> {
        Some([0x02, 0xfa, 0, 0, network.index(), self.host()?])
    }

    /// What its kernel makes of that hardware address for the link alone (RFC 4291, appendix A).
    #[must_use]
    pub fn link_local(self, network: Network) -> Option<Ipv6Addr> {
        let [a, b, c, d, e, f] = self.mac(network)?;
        let part = |high, low| u16::from_be_bytes([high, low]);
        Some(Ipv6Addr::new(0xfe80, 0, 0, 0, part(a ^ 0x02, b), part(c, 0xff), part(0xfe, d), part(e, f)))
    }

    /// Is it one of its own addresses on the first network? Those of the crowd are not.
    #[must_use]
    pub fn is_at(self, ip: IpAddr) -> bool {
        let main = || [IpAddr::from(self.address()), self.address6().into()].contains(&ip);
        self != Self::Switch && (main() || self.link_local(Network::Lan).is_some_and(|own| ip == own))
    }

    /// The addresses that stand for many clients (only `client` and `remote` have them).
    pub fn crowd(self, family: Family) -> impl Iterator<Item = IpAddr> {
        let net = match self {
            Self::Client => Some(77),
            Self::Remote => Some(88),
            Self::Node(_) | Self::Router | Self::Switch => None,
        };
        net.into_iter()
            .flat_map(move |net| CROWD.map(move |host| family.pick(Ipv4Addr::new(10, net, 0, host))))
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Node(i) => write!(f, "node{i}"),
            Self::Client => f.write_str("client"),
            Self::Router => f.write_str("router"),
            Self::Remote => f.write_str("remote"),
            Self::Switch => f.write_str("switch"),
        }
    }
}

impl FromStr for Place {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let number = |digits: &str| digits.parse().ok().filter(|i| (1..=NODES_MAX).contains(i));
        let node = text.strip_prefix("node").and_then(number).map(Self::Node);
        let other = [Self::Client, Self::Router, Self::Remote, Self::Switch]
            .into_iter()
            .find(|p| p.to_string() == text);
        let known = format!(
            "{text:?} is no machine of a lab: node1 to node{NODES_MAX}, client, router, remote, switch"
        );
        node.or(other).ok_or_else(|| Error::msg(known))
    }
}

impl TryFrom<String> for Place {
    type Error = Error;
    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}

impl From<Place> for String {
    fn from(place: Place) -> Self {
        place.to_string()
    }
}

/// A network of the lab.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Network {
    /// `eth0`: service and cluster, 10.77.0.0/24 and fd77::/64.
    Lan,
    /// `eth1` of the nodes: a second cluster network, 10.78.0.0/24 and fd78::/64.
    Second,
}

impl Network {
    fn index(self) -> u8 {
        match self {
            Self::Lan => 0,
            Self::Second => 1,
        }
    }

    /// Name of the network in the configuration of the nodes.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Lan => "lan",
            Self::Second => "second",
        }
    }

    /// Interface of a node on it.
    #[must_use]
    pub fn interface(self) -> &'static str {
        match self {
            Self::Lan => "eth0",
            Self::Second => "eth1",
        }
    }

    /// Its bridge in the switch.
    #[must_use]
    pub fn bridge(self) -> &'static str {
        match self {
            Self::Lan => "lan",
            Self::Second => "second",
        }
    }

    /// Port of the switch where the cable of `place` ends.
    #[must_use]
    pub fn port(self, place: Place) -> String {
        match self {
            Self::Lan => place.to_string(),
            Self::Second => format!("{place}-b"),
        }
    }

    /// The address with last byte `host` on it.
    #[must_use]
    pub fn address(self, host: u8) -> Ipv4Addr {
        Ipv4Addr::new(10, 77 + self.index(), 0, host)
    }

    /// The IPv6 address with the same digits on it.
    #[must_use]
    pub fn address6(self, host: u8) -> Ipv6Addr {
        twin(self.address(host))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_have_names_and_addresses() -> Result<()> {
        for place in Place::all(3) {
            assert_eq!(place.to_string().parse::<Place>()?, place);
        }
        assert_eq!(Place::Node(1).address(), Ipv4Addr::new(10, 77, 0, 11));
        assert_eq!(Place::Remote.address(), Ipv4Addr::new(10, 88, 0, 50));
        assert_eq!(Place::Node(2).address6(), "fd77::12".parse::<Ipv6Addr>()?);
        assert_eq!(Place::Remote.address6(), "fd88::50".parse::<Ipv6Addr>()?);
        assert_eq!(Network::Second.address6(12), "fd78::12".parse::<Ipv6Addr>()?);
        assert_eq!(Family::V6.pick(Ipv4Addr::new(10, 77, 0, 100)), FIRST_VIP6);
        Ok(())
    }

    #[test]
    fn crowds_are_of_one_family_and_nobodys_own() {
        for (family, first) in [(Family::V4, "10.88.0.128"), (Family::V6, "fd88::128")] {
            let crowd: Vec<IpAddr> = Place::Remote.crowd(family).collect();
            assert_eq!((crowd.len(), crowd[0].to_string()), (123, first.to_owned()));
            assert!(crowd.iter().all(|ip| Family::of(*ip) == family && !Place::Remote.is_at(*ip)));
        }
    }

    #[test]
    fn a_machine_knows_its_own_addresses() -> Result<()> {
        for own in ["10.77.0.11", "fd77::11", "fe80::fa:ff:fe00:b"] {
            assert!(Place::Node(1).is_at(own.parse()?), "{own}");
            assert!(!Place::Node(2).is_at(own.parse()?), "{own}");
        }
        assert!(!Place::Switch.is_at(FIRST_VIP6));
        Ok(())
    }

    #[test]
    fn wrong_names_are_refused() {
        for wrong in ["", "A", "a/b", "..", "node 1", &"x".repeat(NAME_MAX + 1)] {
            assert!(wrong.parse::<LabName>().is_err(), "{wrong:?}");
        }
        for wrong in ["node0", "node17", "node", "nodeX", "host", ""] {
            assert!(wrong.parse::<Place>().is_err(), "{wrong:?}");
        }
    }
}
