//! Who drops the frames. Every rival does the same selection by the client's address, and owns nothing itself: each
//! frame belongs to one of the other nodes.

use std::os::fd::OwnedFd;

use anyhow::{Context, Result, anyhow};
use farm_common::image::{Image, SlotBuilder};
use farm_common::layout::{BUCKETS, Entry, Identity, LAYOUT_VERSION, Node};
use farm_common::verdict::{Criterion, Mode, Phase, Reason};
use farm_dataplane::attach::{Filter, Options, PortConfig, XdpMode};
use farm_dataplane::bpf;
use farm_dataplane::sink::TableSink;

use super::road::Road;
use super::source;
use crate::lab::Lab;
use crate::names::Place;
use crate::{FIRST_VIP, WEB_PORT, shell};

const TCP: u8 = 6;
/// Nodes that own clients.
const OTHERS: u8 = 3;
/// What both rivals in netfilter mix into their hash.
const SEED: u32 = 0x5eed;

/// One of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Rival {
    Empty,
    Filter,
    FilterGeneric,
    Jhash,
    Cluster,
}

/// A rival in force.
pub(super) enum Bar {
    Empty(OwnedFd),
    Filter(Box<Filter>),
    Jhash,
    Cluster,
}

impl Rival {
    /// In the order of a round.
    pub(super) const ALL: [Self; 5] =
        [Self::Empty, Self::Filter, Self::Jhash, Self::Cluster, Self::FilterGeneric];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Empty => "empty-drop",
            Self::Filter => "filter",
            Self::FilterGeneric => "filter-generic",
            Self::Jhash => "nft-jhash",
            Self::Cluster => "iptables-cluster",
        }
    }

    pub(super) fn what(self) -> &'static str {
        match self {
            Self::Empty => "an XDP program that only drops, native mode",
            Self::Filter => "our filter, native mode (flood, not_owner)",
            Self::FilterGeneric => "our filter, generic mode (flood, not_owner)",
            Self::Jhash => "nft at netdev ingress (jhash ip saddr mod 3)",
            Self::Cluster => "iptables -m cluster in mangle PREROUTING (3 nodes; it needs conntrack)",
        }
    }

    pub(super) fn put_up(self, lab: &Lab, road: &Road) -> Result<Bar> {
        match self {
            Self::Empty => {
                let program = source::empty()?;
                let attached = road.namespace().run(|| Ok(bpf::attach_native(&program, road.ifindex)?));
                Ok(Bar::Empty(attached?))
            }
            Self::Filter => filter(lab, road, XdpMode::Native).map(|f| Bar::Filter(Box::new(f))),
            Self::FilterGeneric => filter(lab, road, XdpMode::Generic).map(|f| Bar::Filter(Box::new(f))),
            Self::Jhash => {
                shell::feed(road.namespace().command("nft")?.args(["-f", "-"]), &jhash(&road.interface))?;
                Ok(Bar::Jhash)
            }
            Self::Cluster => {
                let (rule, on) = (cluster(), ["-i", &road.interface]);
                let mut iptables = road.namespace().command("iptables")?;
                iptables.args(["-w", "-t", "mangle", "-A", "PREROUTING"]).args(on);
                shell::run(iptables.args(rule.split(' ')))?;
                Ok(Bar::Cluster)
            }
        }
    }
}

fn jhash(interface: &str) -> String {
    format!(
        "table netdev rival {{\n chain ingress {{\n  type filter hook ingress device {interface} priority 0\n  ip daddr \
         {FIRST_VIP} tcp dport {WEB_PORT} jhash ip saddr mod {OTHERS} seed {SEED:#x} <= {} counter drop\n }}\n}}\n",
        OTHERS - 1
    )
}

fn cluster() -> String {
    let all = (1 << OTHERS) - 1;
    format!(
        "-d {FIRST_VIP} -p tcp --dport {WEB_PORT} -m cluster --cluster-total-nodes {OTHERS} --cluster-local-nodemask \
         {all:#x} --cluster-hash-seed {SEED:#x} -j DROP"
    )
}

impl Bar {
    /// What it dropped by its own count since it was put up. The empty program counts nothing: the driver does.
    pub(super) fn dropped(&self, road: &Road) -> Result<u64> {
        match self {
            Self::Empty(_) => road.statistic("xdp_drops"),
            Self::Filter(filter) => {
                let counters = filter.counters()?;
                counters.get(Reason::NotOwner.name()).copied().context("no such counter")
            }
            Self::Jhash => {
                let table = ["list", "table", "netdev", "rival"];
                let text = shell::run(road.namespace().command("nft")?.args(table))?;
                number_between(&text, "counter packets ", " ")
            }
            Self::Cluster => {
                let mut save = road.namespace().command("iptables-save")?;
                let text = shell::run(save.args(["-c", "-t", "mangle"]))?;
                let rule = text.lines().find(|line| line.contains("-m cluster"));
                number_between(rule.with_context(|| format!("no such rule in {text}"))?, "[", ":")
            }
        }
    }

    pub(super) fn remove(self, road: &Road) -> Result<()> {
        match self {
            Self::Empty(link) => drop(link),
            Self::Filter(filter) => road.namespace().run(|| Ok(filter.detach_and_unpin()?))?,
            Self::Jhash => {
                let table = ["delete", "table", "netdev", "rival"];
                shell::run(road.namespace().command("nft")?.args(table))?;
            }
            Self::Cluster => {
                let flush = ["-w", "-t", "mangle", "-F", "PREROUTING"];
                shell::run(road.namespace().command("iptables")?.args(flush))?;
            }
        }
        Ok(())
    }
}

fn number_between(text: &str, before: &str, after: &str) -> Result<u64> {
    let (_, rest) = text.split_once(before).with_context(|| format!("no {before:?} in {text}"))?;
    let (number, _) = rest.split_once(after).with_context(|| format!("no {after:?} in {text}"))?;
    number.parse().with_context(|| number.to_owned())
}

/// Our filter as a daemon attaches it, with a table in which this node owns no bucket.
fn filter(lab: &Lab, road: &Road, mode: XdpMode) -> Result<Filter> {
    let port = PortConfig::untagged(road.ifindex, &road.interface, road.mac, 0);
    let options = Options {
        pin_dir: lab.spec().pin_dir(Place::Node(1)),
        identity: Identity { cluster: [1; 16], node: 1, layout: LAYOUT_VERSION, reserved: 0 },
        ports: vec![port],
        mode,
    };
    let table = table()?;
    road.namespace().run(|| {
        let (filter, _) = Filter::take_up(&options)?;
        let mut writer = filter.writer().context("it has one")?;
        writer.grace()?;
        writer.publish(&table)?;
        writer.set_deadline(u64::MAX);
        Ok(filter)
    })
}

fn table() -> Result<Image> {
    const ME: u8 = OTHERS + 1;
    let wrong = |e| anyhow!("the table: {e}");
    let virtual_mac = [0x02, 0xfa, 0, 0, 0xff, 3];
    let mut builder = SlotBuilder::new(1, 1, ME, [1, 2]).map_err(wrong)?;
    let vip = builder.vip(FIRST_VIP, 0, 0, Mode::Flood, virtual_mac).map_err(wrong)?;
    builder.service(vip, TCP, WEB_PORT, Criterion::SourceAddress).map_err(wrong)?;
    for node in 1..=ME {
        let mac = [0x02, 0xfa, 0, 0, 0xfe, node];
        let at = Node { address6: [0; 16], address4: [10, 77, 0, 10 + node], mac, reserved: [0; 6] };
        builder.node(0, node, at).map_err(wrong)?;
    }
    for bucket in 0..BUCKETS {
        let current = 1 + (bucket % usize::from(OTHERS)) as u8;
        let entry = Entry { current, previous: 0, phase: Phase::Stable.into(), reserved: 0 };
        builder.entry(0, bucket, entry).map_err(wrong)?;
    }
    builder.finish().map_err(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_read_from_what_the_tools_print() {
        let nft = "ip saddr mod 3 seed 0x5eed <= 2 counter packets 477408 bytes 21960768 drop";
        assert_eq!(number_between(nft, "counter packets ", " ").ok(), Some(477_408));
        let rule = "[173936:6957440] -A PREROUTING -i x -m cluster -j DROP";
        assert_eq!(number_between(rule, "[", ":").ok(), Some(173_936));
        assert!(number_between("nothing", "[", ":").is_err());
    }

    #[test]
    fn nobody_hashes_to_this_node() -> Result<()> {
        let table = table()?;
        assert!(table.entries[0].iter().all(|entry| (1..=OTHERS).contains(&entry.current)));
        Ok(())
    }
}
