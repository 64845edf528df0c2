//! Interfaces and the addresses on them.

use std::net::IpAddr;
use std::time::Duration;

use super::{Found, Limit, bad, unknown};
use crate::links::{self, Configured, LinkInfo, Usability};
use crate::probe::address_in_use;
use crate::{Error, Netlink};

/// How long the link is listened to. Those who hold an address answer within milliseconds; three probes are spread over
/// it, in case one is lost.
const PROBE: Duration = Duration::from_secs(1);

/// On which link to ask whether somebody else has an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AskOn {
    /// The link that has it; where that is `lo`, the link whose subnet it is in.
    ItsLink,
    /// The link with this name.
    Link(String),
}

/// What this host has.
struct Host {
    links: Vec<LinkInfo>,
    addresses: Vec<Configured>,
}

impl Host {
    async fn look(limit: Limit) -> Found<Self> {
        let look = async {
            let netlink = Netlink::open()?;
            let (links, addresses) = (links::list(&netlink).await?, links::addresses(&netlink).await?);
            Ok::<_, Error>(Self { links, addresses })
        };
        match tokio::time::timeout_at(limit.ends, look).await {
            Ok(Ok(host)) => Ok(host),
            Ok(Err(error)) => unknown(error.to_string()),
            Err(_) => unknown(format!("the kernel did not list the interfaces within {limit}")),
        }
    }

    fn link(&self, name: &str) -> Found<&LinkInfo> {
        let found = self.links.iter().find(|link| link.name == name);
        found.map_or_else(|| bad(format!("there is no interface {name}")), Ok)
    }

    fn name(&self, ifindex: u32) -> String {
        let found = self.links.iter().find(|link| link.ifindex == ifindex);
        found.map_or_else(|| format!("interface {ifindex}"), |link| link.name.clone())
    }

    /// The address where it is ready for use, on `only` or on any link.
    fn holder(&self, ip: IpAddr, only: Option<&LinkInfo>) -> Found<&Configured> {
        let on = |configured: &&Configured| only.is_none_or(|link| link.ifindex == configured.ifindex);
        let held: Vec<&Configured> = self.addresses.iter().filter(|held| held.ip == ip).filter(on).collect();
        if let Some(ready) = held.iter().find(|held| held.usability == Usability::Ready) {
            return Ok(ready);
        }
        match (held.first(), only) {
            (Some(held), _) => bad(useless(held, &self.name(held.ifindex))),
            (None, Some(link)) => bad(format!("interface {} does not have the address {ip}", link.name)),
            (None, None) => bad(format!("no interface of this host has the address {ip}")),
        }
    }

    /// Where to ask for an address that `held` says where it is.
    fn asked(&self, held: &Configured, on: &AskOn) -> Found<&LinkInfo> {
        let ip = held.ip;
        match on {
            AskOn::Link(name) => self.link(name),
            AskOn::ItsLink => {
                let own = self.links.iter().find(|link| link.ifindex == held.ifindex && !link.loopback);
                let link = own.or_else(|| links::covering(&self.links, ip));
                link.map_or_else(
                    || unknown(format!("no link has {ip} in its subnet, to ask for it there")),
                    Ok,
                )
            }
        }
    }
}

fn useless(held: &Configured, name: &str) -> String {
    let ip = held.ip;
    match held.usability {
        Usability::Ready => format!("the address {ip} on interface {name} is ready"),
        Usability::Tentative => {
            format!(
                "the address {ip} on interface {name} is not ready: the kernel still asks whether it is unique"
            )
        }
        Usability::Duplicate => {
            format!(
                "the address {ip} on interface {name} cannot be used: the kernel found another host with it"
            )
        }
    }
}

pub(super) async fn interface(name: &str, address: Option<IpAddr>, limit: Limit) -> Found {
    let host = Host::look(limit).await?;
    let link = host.link(name)?;
    carries(link)?;
    match address {
        Some(ip) => host.holder(ip, Some(link)).map(|_| ()),
        None => Ok(()),
    }
}

fn carries(link: &LinkInfo) -> Found {
    match (link.up, link.carrier) {
        (false, _) => bad(format!("interface {} is switched off", link.name)),
        (true, false) => bad(format!("interface {} has no carrier", link.name)),
        (true, true) => Ok(()),
    }
}

pub(super) async fn address(ip: IpAddr, unique: Option<&AskOn>, limit: Limit) -> Found {
    let host = Host::look(limit).await?;
    let held = host.holder(ip, None)?;
    let Some(on) = unique else { return Ok(()) };
    let link = host.asked(held, on)?;
    carries(link)
        .or_else(|_| unknown(format!("nobody can be asked for {ip}: interface {} is down", link.name)))?;
    match address_in_use(link.ifindex, link.mac, ip, PROBE.min(limit.left())).await {
        Ok(None) => Ok(()),
        Ok(Some([a, b, c, d, e, f])) => {
            let who = format!("{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{f:02x}");
            bad(format!("the address {ip} is in use by another host too: {who} on interface {}", link.name))
        }
        Err(error) => unknown(error.to_string()),
    }
}
