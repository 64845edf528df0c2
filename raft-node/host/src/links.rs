//! The interfaces of this namespace: what there is, and what changes.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use futures::{Stream, StreamExt};
use ipnet::IpNet;
use netlink_packet_route::address::{AddressAttribute, AddressHeaderFlags, AddressMessage};
use netlink_packet_route::link::{
    InfoData, InfoVlan, LinkAttribute, LinkFlags, LinkInfo as Info, LinkMessage,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use rtnetlink::MulticastGroup;

use crate::watch::{Notice, Watch};
use crate::{Error, Mac, Netlink, ethtool};

/// One interface, as it was when asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LinkInfo {
    /// The kernel's index; a link that is deleted and made again gets another one.
    pub ifindex: u32,
    /// Its present name.
    pub name: String,
    /// Its Ethernet address; all zero on `lo` and on devices without one.
    pub mac: Mac,
    /// Its addresses, each with its prefix length. Link-local ones of IPv6 only if it has no other:
    /// they tell neither links nor hosts of different links apart.
    pub addresses: Vec<IpNet>,
    /// The driver as `ethtool -i` names it (`veth`, `virtio_net`, `bonding`); where it names none,
    /// the link kind; empty for `lo`.
    pub driver: String,
    /// Bytes of the longest IP packet that it sends.
    pub mtu: u32,
    /// Switched on by the administrator.
    pub up: bool,
    /// Is up and has carrier. In the first moments of carrier the kernel may still drop, silently,
    /// what is sent: repeat what matters.
    pub carrier: bool,
    /// The loopback device.
    pub loopback: bool,
    /// What the kernel puts on its frames, where it is a VLAN of another interface.
    pub vlan: Option<Tag>,
}

/// The tag of a VLAN interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tag {
    /// Index of the interface on which the frames carry it.
    pub below: u32,
    /// The VLAN.
    pub id: u16,
}

/// An address on a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Configured {
    /// The link.
    pub ifindex: u32,
    /// The address.
    pub ip: IpAddr,
    /// Whether the kernel answers for it.
    pub usability: Usability,
}

/// What became of the search for others with the same address (RFC 4862 §5.4). An IPv4 address is always ready.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Usability {
    /// It can be used.
    Ready,
    /// The kernel still asks whether somebody else has it (`tentative`).
    Tentative,
    /// Somebody else has it, and the kernel does not use it (`dadfailed`).
    Duplicate,
}

/// A change of a link or of an address, in the order in which the kernel made it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LinkEvent {
    /// The link is new, or something about it changed (also its name, its master, its filter).
    Changed {
        /// Its index.
        ifindex: u32,
        /// Its name now.
        name: String,
        /// Switched on.
        up: bool,
        /// As [`LinkInfo::carrier`].
        carrier: bool,
    },
    /// The link is gone from this namespace: deleted, or moved to another.
    Removed {
        /// Its former index.
        ifindex: u32,
        /// Its last name.
        name: String,
    },
    /// An address was configured, or its lifetime or flags changed.
    AddressAdded {
        /// On this link.
        ifindex: u32,
        /// The address with its prefix length.
        address: IpNet,
    },
    /// An address was removed.
    AddressRemoved {
        /// From this link.
        ifindex: u32,
        /// The address with its prefix length.
        address: IpNet,
    },
    /// The kernel dropped events because they were not read fast enough: look at everything anew.
    Lost,
}

/// All interfaces, by index.
///
/// # Errors
/// [`Error::System`] when a netlink dump is refused.
pub async fn list(netlink: &Netlink) -> Result<Vec<LinkInfo>, Error> {
    let mut addresses = addresses_by_link(netlink).await?;
    let messages = netlink.dump(list_action, |handle| handle.link().get().execute()).await?;
    let mut links = messages
        .iter()
        .map(|m| link_info(m, addresses.remove(&m.header.index).unwrap_or_default()))
        .collect::<Result<Vec<_>, _>>()?;
    links.sort_by_key(|link| link.ifindex);
    Ok(links)
}

/// All addresses of all links, the link-local ones too.
///
/// # Errors
/// [`Error::System`] when a netlink dump is refused.
pub async fn addresses(netlink: &Netlink) -> Result<Vec<Configured>, Error> {
    let messages = netlink.dump(addresses_action, |handle| handle.address().get().execute()).await?;
    let configured = |message: &AddressMessage| {
        let (ip, flags) = (address(message)?.addr(), message.header.flags);
        let usability = match () {
            () if flags.contains(AddressHeaderFlags::Dadfailed) => Usability::Duplicate,
            // An optimistic one is used meanwhile (RFC 4429).
            () if flags.contains(AddressHeaderFlags::Optimistic) => Usability::Ready,
            () if flags.contains(AddressHeaderFlags::Tentative) => Usability::Tentative,
            () => Usability::Ready,
        };
        Some(Configured { ifindex: message.header.index, ip, usability })
    };
    Ok(messages.iter().filter_map(configured).collect())
}

/// The link with this name.
///
/// # Errors
/// [`Error::NoSuchInterface`]; [`Error::System`] when a netlink dump is refused.
pub async fn by_name(netlink: &Netlink, name: &str) -> Result<LinkInfo, Error> {
    let found = list(netlink).await?.into_iter().find(|link| link.name == name);
    found.ok_or_else(|| Error::NoSuchInterface(name.into()))
}

/// The link whose subnet contains `ip`, as [`covering`] chooses it.
///
/// # Errors
/// [`Error::System`] when a netlink dump is refused.
pub async fn find_covering(netlink: &Netlink, ip: IpAddr) -> Result<Option<LinkInfo>, Error> {
    Ok(covering(&list(netlink).await?, ip).cloned())
}

/// The link among `links` whose subnet contains `ip`: the longest prefix wins, then a link that is
/// up, then the lower index. Host prefixes (/32, /128) and loopback are no subnets.
#[must_use]
pub fn covering(links: &[LinkInfo], ip: IpAddr) -> Option<&LinkInfo> {
    links
        .iter()
        .filter(|link| !link.loopback)
        .filter_map(|link| Some((longest_prefix(link, ip)?, link)))
        .max_by_key(|(prefix, link)| (*prefix, link.up, std::cmp::Reverse(link.ifindex)))
        .map(|(_, link)| link)
}

fn longest_prefix(link: &LinkInfo, ip: IpAddr) -> Option<u8> {
    let subnets = link.addresses.iter().filter(|net| net.prefix_len() < net.max_prefix_len());
    subnets.filter(|net| net.contains(&ip)).map(IpNet::prefix_len).max()
}

/// Whether the network card takes VLAN tags off the frames that `name` receives (`ethtool -k`, `rx-vlan-offload`): an
/// XDP program does not see them then. Said of 802.1Q; a device that vanished takes nothing off.
///
/// # Errors
/// [`Error::System`] when there is no socket to ask by.
pub fn takes_tags_off(name: &str) -> Result<bool, Error> {
    ethtool::takes_tags_off(name)
}

/// Subscribes to changes of links and addresses. Every change after this call has returned is
/// delivered, or [`LinkEvent::Lost`] is. Must be called within a tokio runtime.
///
/// # Errors
/// [`Error::System`] when the kernel gives no socket or no subscription.
pub fn watch() -> Result<LinkWatch, Error> {
    const GROUPS: [MulticastGroup; 3] =
        [MulticastGroup::Link, MulticastGroup::Ipv4Ifaddr, MulticastGroup::Ipv6Ifaddr];
    Ok(LinkWatch { changes: Watch::open(&GROUPS)? })
}

/// The stream of [`watch`]; it ends only when the kernel closes the socket.
#[derive(Debug)]
pub struct LinkWatch {
    changes: Watch,
}

impl Stream for LinkWatch {
    type Item = LinkEvent;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<LinkEvent>> {
        loop {
            let event = match ready!(self.changes.poll_next_unpin(context)) {
                None => return Poll::Ready(None),
                Some(Notice::Lost) => Some(LinkEvent::Lost),
                Some(Notice::Change(message)) => route_event(&message),
            };
            if event.is_some() {
                return Poll::Ready(event);
            }
        }
    }
}

fn route_event(message: &RouteNetlinkMessage) -> Option<LinkEvent> {
    match message {
        // The bridge sends link messages of its own family about its *ports*: a port that leaves
        // the bridge is no link that is removed.
        RouteNetlinkMessage::NewLink(m) if m.header.interface_family == AddressFamily::Unspec => {
            let (up, carrier) = state(m);
            Some(LinkEvent::Changed { ifindex: m.header.index, name: name(m), up, carrier })
        }
        RouteNetlinkMessage::DelLink(m) if m.header.interface_family == AddressFamily::Unspec => {
            Some(LinkEvent::Removed { ifindex: m.header.index, name: name(m) })
        }
        RouteNetlinkMessage::NewAddress(m) => {
            address(m).map(|address| LinkEvent::AddressAdded { ifindex: m.header.index, address })
        }
        RouteNetlinkMessage::DelAddress(m) => {
            address(m).map(|address| LinkEvent::AddressRemoved { ifindex: m.header.index, address })
        }
        // Other messages do not come in these groups.
        _ => None,
    }
}

fn link_info(message: &LinkMessage, addresses: Vec<IpNet>) -> Result<LinkInfo, Error> {
    let name = name(message);
    let (up, carrier) = state(message);
    Ok(LinkInfo {
        ifindex: message.header.index,
        mac: mac(message),
        addresses: distinct(addresses),
        driver: ethtool::driver(&name)?.or_else(|| kind(message)).unwrap_or_default(),
        mtu: mtu(message),
        up,
        carrier,
        loopback: message.header.flags.contains(LinkFlags::Loopback),
        vlan: tag(message),
        name,
    })
}

fn state(message: &LinkMessage) -> (bool, bool) {
    let flags = message.header.flags;
    let up = flags.contains(LinkFlags::Up);
    (up, up && flags.contains(LinkFlags::LowerUp))
}

fn name(message: &LinkMessage) -> String {
    let name = message.attributes.iter().find_map(|a| match a {
        LinkAttribute::IfName(name) => Some(name.clone()),
        _ => None,
    });
    name.unwrap_or_default()
}

fn mac(message: &LinkMessage) -> Mac {
    let mac = message.attributes.iter().find_map(|a| match a {
        LinkAttribute::Address(bytes) => Mac::try_from(bytes.as_slice()).ok(),
        _ => None,
    });
    mac.unwrap_or_default()
}

fn mtu(message: &LinkMessage) -> u32 {
    let mtu = message.attributes.iter().find_map(|a| match a {
        LinkAttribute::Mtu(mtu) => Some(*mtu),
        _ => None,
    });
    mtu.unwrap_or_default()
}

fn infos(message: &LinkMessage) -> &[Info] {
    let infos = message.attributes.iter().find_map(|a| match a {
        LinkAttribute::LinkInfo(infos) => Some(infos.as_slice()),
        _ => None,
    });
    infos.unwrap_or_default()
}

fn tag(message: &LinkMessage) -> Option<Tag> {
    let below = message.attributes.iter().find_map(|a| match a {
        LinkAttribute::Link(below) => Some(*below),
        _ => None,
    })?;
    let data = infos(message).iter().find_map(|info| match info {
        Info::Data(InfoData::Vlan(data)) => Some(data),
        _ => None,
    })?;
    let id = data.iter().find_map(|item| match item {
        InfoVlan::Id(id) => Some(*id),
        _ => None,
    })?;
    Some(Tag { below, id })
}

fn kind(message: &LinkMessage) -> Option<String> {
    infos(message).iter().find_map(|info| match info {
        Info::Kind(kind) => Some(kind.to_string()),
        _ => None,
    })
}

async fn addresses_by_link(netlink: &Netlink) -> Result<BTreeMap<u32, Vec<IpNet>>, Error> {
    let mut by_link: BTreeMap<u32, Vec<IpNet>> = BTreeMap::new();
    for message in netlink.dump(addresses_action, |handle| handle.address().get().execute()).await? {
        by_link.entry(message.header.index).or_default().extend(address(&message));
    }
    Ok(by_link)
}

/// `addresses` without the link-local ones of IPv6, unless those are all.
fn distinct(addresses: Vec<IpNet>) -> Vec<IpNet> {
    let distinct: Vec<IpNet> = addresses.iter().copied().filter(|net| !is_link_local(net)).collect();
    if distinct.is_empty() { addresses } else { distinct }
}

fn is_link_local(net: &IpNet) -> bool {
    matches!(net, IpNet::V6(net) if net.addr().is_unicast_link_local())
}

/// The address itself: on a point-to-point link `IFA_ADDRESS` names the peer, `IFA_LOCAL` us.
fn address(message: &AddressMessage) -> Option<IpNet> {
    let local = message.attributes.iter().find_map(|a| match a {
        AddressAttribute::Local(ip) => Some(*ip),
        _ => None,
    });
    let address = message.attributes.iter().find_map(|a| match a {
        AddressAttribute::Address(ip) => Some(*ip),
        _ => None,
    });
    IpNet::new(local.or(address)?, message.header.prefix_len).ok()
}

fn list_action() -> String {
    "list the interfaces".into()
}

fn addresses_action() -> String {
    "list the addresses".into()
}
