//! Virtual addresses: on `lo` only, as host prefixes that are never chosen as a source.
//!
//! On a device instead, the address would become the source of the node's own IPv6 connections and
//! of its neighbour solicitations, and would go with the link.

use std::io;
use std::net::IpAddr;
use std::time::Duration;

use futures::StreamExt;
use ipnet::IpNet;
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::address::{AddressAttribute, AddressHeaderFlags, CacheInfo};
use netlink_packet_route::route::{RouteAddress, RouteAttribute, RouteType};
use nix::errno::Errno;
use rtnetlink::MulticastGroup;

use crate::links::{self, LinkInfo};
use crate::watch::{Notice, Watch};
use crate::{Error, Netlink};

/// `INFINITY_LIFE_TIME` of `linux/if_addr.h`.
const FOREVER: u32 = u32::MAX;

/// The kernel enters an IPv6 address's route within microseconds; only a stuck one takes this long.
const ROUTE_TIMEOUT: Duration = Duration::from_secs(2);

/// Puts `ip` on `lo` as /32 or /128, `nodad preferred_lft 0`, and returns when it can be reached.
/// If it is already there, its lifetime is set right; nothing else changes.
///
/// # Errors
/// [`Error::NoIpv6`]; [`Error::System`], mostly for want of `CAP_NET_ADMIN`.
pub async fn add_virtual(netlink: &Netlink, ip: IpAddr) -> Result<(), Error> {
    // The kernel answers before it enters the route of an IPv6 address, which a work queue does.
    let new = ip.is_ipv6() && !virtual_present(netlink, ip).await?;
    let routes = new.then(|| Watch::open(&[MulticastGroup::Ipv6Route])).transpose()?;
    put_on_loopback(netlink, ip).await?;
    match routes {
        Some(routes) => local_route(routes, ip).await,
        None => Ok(()),
    }
}

async fn put_on_loopback(netlink: &Netlink, ip: IpAddr) -> Result<(), Error> {
    let action = || format!("add virtual address {ip} to lo");
    let lo = loopback(netlink).await?;
    let addresses = netlink.handle(action)?.address();
    let mut request = addresses.add(lo.ifindex, ip, host_prefix(ip).prefix_len()).replace();
    let message = request.message_mut();
    message.header.flags = AddressHeaderFlags::Nodad;
    let mut lifetime = CacheInfo::default();
    lifetime.ifa_preferred = 0;
    lifetime.ifa_valid = FOREVER;
    message.attributes.push(AddressAttribute::CacheInfo(lifetime));
    match request.execute().await.map_err(|e| Error::rtnetlink(action(), e)) {
        // For want of a capability the kernel says EPERM.
        Err(e) if ip.is_ipv6() && e.errno() == Some(Errno::EACCES) => {
            Err(Error::NoIpv6 { action: action(), interface: lo.name })
        }
        result => result,
    }
}

async fn local_route(mut routes: Watch, ip: IpAddr) -> Result<(), Error> {
    let action = || format!("wait for the local route of virtual address {ip}");
    let entered = async {
        while let Some(notice) = routes.next().await {
            if matches!(&notice, Notice::Change(message) if is_local_route(message, ip)) {
                return Ok(());
            }
        }
        Err(Error::Closed { action: action() })
    };
    let timeout = tokio::time::timeout(ROUTE_TIMEOUT, entered).await;
    timeout.unwrap_or_else(|_elapsed| Err(Error::system(action(), io::ErrorKind::TimedOut)))
}

fn is_local_route(message: &RouteNetlinkMessage, ip: IpAddr) -> bool {
    let RouteNetlinkMessage::NewRoute(route) = message else {
        return false;
    };
    let destination = RouteAttribute::Destination(RouteAddress::from(ip));
    route.header.kind == RouteType::Local && route.attributes.contains(&destination)
}

/// Takes `ip` from `lo`; nothing happens if it is not there. Established connections to it stall
/// at once: call it at the end of a drain.
///
/// # Errors
/// [`Error::System`], mostly for want of `CAP_NET_ADMIN`.
pub async fn remove_virtual(netlink: &Netlink, ip: IpAddr) -> Result<(), Error> {
    let action = || format!("remove virtual address {ip} from lo");
    let lo = loopback(netlink).await?;
    let addresses = netlink.handle(action)?.address();
    // The same message that adds it names it.
    let message = addresses.add(lo.ifindex, ip, host_prefix(ip).prefix_len()).message_mut().clone();
    let removed = addresses.del(message).execute().await;
    match removed.map_err(|e| Error::rtnetlink(action(), e)) {
        Err(e) if e.errno() == Some(Errno::EADDRNOTAVAIL) => Ok(()),
        result => result,
    }
}

/// Whether `lo` holds `ip` as a host prefix.
///
/// # Errors
/// [`Error::System`] when a netlink dump is refused.
pub async fn virtual_present(netlink: &Netlink, ip: IpAddr) -> Result<bool, Error> {
    Ok(loopback(netlink).await?.addresses.contains(&host_prefix(ip)))
}

/// The interface, other than `lo`, on which somebody else configured `ip`: ifupdown, netplan,
/// keepalived. Such an address is not Farm's to serve or to remove.
///
/// # Errors
/// [`Error::System`] when a netlink dump is refused.
pub async fn held_elsewhere(netlink: &Netlink, ip: IpAddr) -> Result<Option<String>, Error> {
    let links = links::list(netlink).await?;
    let holds = |link: &LinkInfo| link.addresses.iter().any(|net| net.addr() == ip);
    Ok(links.into_iter().find(|link| !link.loopback && holds(link)).map(|link| link.name))
}

fn host_prefix(ip: IpAddr) -> IpNet {
    IpNet::from(ip)
}

async fn loopback(netlink: &Netlink) -> Result<LinkInfo, Error> {
    let found = links::list(netlink).await?.into_iter().find(|link| link.loopback);
    found.ok_or_else(|| Error::NoSuchInterface("lo".into()))
}
