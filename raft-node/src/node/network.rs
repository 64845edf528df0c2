//! Whether the links are what the configuration says: which VLAN the kernel's interface is of, and whether the filter
//! sees the tags.

use farm_core::model::Vlan;
use farm_host::links::LinkInfo;
use farm_host::{Netlink, links};

use crate::config::{Config, LinkConfig};
use crate::problem::Problem;

/// What keeps a link from being what the configuration says.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum LinkMismatch {
    /// The kernel's interface is of another VLAN.
    #[error("{device} is of VLAN {is}, but [[link]] says {said}")]
    OtherVlan {
        /// The interface.
        device: String,
        /// What the kernel says.
        is: Vlan,
        /// What the configuration says.
        said: Vlan,
    },
    /// The kernel's interface is made on another one.
    #[error("{device} is a VLAN of {below}, but [[link]] has the filter on {filter}")]
    OtherFilter {
        /// The interface.
        device: String,
        /// The lowest interface below it.
        below: String,
        /// Where the filter is wanted.
        filter: String,
    },
    /// The network card takes the tags off: the filter would take all VLANs for one.
    #[error("{0} takes VLAN tags off before the filter sees them")]
    TagsTakenOff(String),
}

impl LinkMismatch {
    /// The command that helps.
    #[must_use]
    pub fn cure(&self) -> String {
        match self {
            Self::OtherVlan { device, .. } | Self::OtherFilter { device, .. } => {
                format!("ip -details link show {device}")
            }
            Self::TagsTakenOff(name) => format!("ethtool -K {name} rxvlan off"),
        }
    }

    fn problem(&self) -> Problem {
        match self {
            Self::OtherVlan { .. } | Self::OtherFilter { .. } => {
                Problem::new("vlan_mismatch", self.to_string(), self.cure())
            }
            Self::TagsTakenOff(_) => Problem::new("vlan_tags_taken_off", self.to_string(), self.cure()),
        }
    }
}

/// Refuses to start on links that are not what the configuration says. One that is not there yet is no mistake.
///
/// # Errors
/// The first that is wrong, and the command that helps.
pub async fn check(config: &Config) -> Result<(), Problem> {
    let unknown = |e: farm_host::Error| Problem::new("unknown_interface", e.to_string(), "ip -brief link");
    let netlink = Netlink::open().map_err(unknown)?;
    let all = links::list(&netlink).await.map_err(unknown)?;
    for link in &config.links {
        if let Some(wrong) = mismatch(link, &all).map_err(unknown)? {
            return Err(wrong.problem());
        }
    }
    Ok(())
}

/// What is wrong with a link, `all` being the interfaces there are.
///
/// # Errors
/// When the kernel cannot be asked.
pub fn mismatch(link: &LinkConfig, all: &[LinkInfo]) -> Result<Option<LinkMismatch>, farm_host::Error> {
    if let Some(wrong) = misplaced(link, all) {
        return Ok(Some(wrong));
    }
    let taken_off = !link.tags().is_none() && links::takes_tags_off(&link.filter)?;
    Ok(taken_off.then(|| LinkMismatch::TagsTakenOff(link.filter.clone())))
}

/// Only interfaces that the kernel itself makes of a VLAN say which one they are of.
fn misplaced(link: &LinkConfig, all: &[LinkInfo]) -> Option<LinkMismatch> {
    let (below, is) = vlan_of(&link.device, all)?;
    let device = link.device.clone();
    if is != link.vlan && !link.vlan.is_none() {
        return Some(LinkMismatch::OtherVlan { device, is, said: link.vlan });
    }
    let elsewhere = link.filter != link.device && link.filter != below;
    elsewhere.then(|| LinkMismatch::OtherFilter { device, below: below.into(), filter: link.filter.clone() })
}

/// The lowest interface below `device`, and the VLAN there; `None` where the kernel knows of no VLAN.
fn vlan_of<'a>(device: &str, all: &'a [LinkInfo]) -> Option<(&'a str, Vlan)> {
    let mut at = all.iter().find(|link| link.name == device)?;
    let mut ids = Vec::new();
    while let Some(tag) = at.vlan.filter(|_| ids.len() < 2) {
        ids.push(tag.id);
        at = all.iter().find(|link| link.ifindex == tag.below)?;
    }
    let vlan = match ids[..] {
        [one] => Vlan::one(one),
        [inner, outer] => Vlan::two(outer, inner),
        _ => None,
    };
    vlan.map(|vlan| (at.name.as_str(), vlan))
}

#[cfg(test)]
mod tests {
    use farm_host::links::Tag;

    use super::*;

    fn link(ifindex: u32, name: &str, vlan: Option<Tag>) -> LinkInfo {
        let (mac, addresses, driver) = (farm_host::Mac::default(), Vec::new(), String::new());
        let (up, carrier, loopback) = (true, true, false);
        LinkInfo {
            ifindex,
            name: name.into(),
            mac,
            addresses,
            driver,
            mtu: 1500,
            up,
            carrier,
            loopback,
            vlan,
        }
    }

    fn said(device: &str, vlan: &str, filter: &str) -> LinkConfig {
        LinkConfig { device: device.into(), vlan: vlan.parse().unwrap(), filter: filter.into() }
    }

    #[test]
    fn what_the_kernel_knows_of_a_vlan_must_agree() {
        let tag = |below, id| Some(Tag { below, id });
        let all = [
            link(2, "eth0", None),
            link(3, "s", tag(2, 100)),
            link(4, "q", tag(3, 30)),
            link(5, "ovs", None),
        ];
        for right in [said("s", "100", "eth0"), said("s", "100", "s"), said("q", "100.30", "eth0")] {
            assert_eq!(misplaced(&right, &all), None, "{right:?}");
        }
        assert_eq!(misplaced(&said("ovs", "7", "eth0"), &all), None, "the kernel knows nothing of it");
        assert_eq!(misplaced(&said("gone", "7", "eth0"), &all), None);
        let wrong = misplaced(&said("q", "30", "eth0"), &all).unwrap();
        assert_eq!(wrong.to_string(), "q is of VLAN 100.30, but [[link]] says 30");
        let wrong = misplaced(&said("q", "100.30", "s"), &all).unwrap();
        assert_eq!(wrong.to_string(), "q is a VLAN of eth0, but [[link]] has the filter on s");
    }

    #[test]
    fn each_mistake_has_its_cure() {
        let problem = LinkMismatch::TagsTakenOff("eth0".into()).problem();
        assert_eq!(problem.fact, "eth0 takes VLAN tags off before the filter sees them");
        assert_eq!(problem.cure, "ethtool -K eth0 rxvlan off");
    }
}
