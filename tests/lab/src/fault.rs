//! Faults of the network: a cable pulled, a machine unheard with its carrier up, one direction only, a narrow hop; and
//! jumbo frames, where narrow hops come from.

use anyhow::Result;

use crate::lab::Lab;
use crate::names::{Network, Place};
use crate::shell;
use crate::topology::in_switch;

/// What the switch drops between its ports, by names of ports; both networks in one table.
const BLOCK_TABLE: &str = "table bridge farm {
 set blocked { type ifname . ifname; }
 chain forward {
  type filter hook forward priority 0; policy accept;
  iifname . oifname @blocked drop
 }
}
";

impl Lab {
    /// Pulls the cables of `place`: its interfaces lose their carrier.
    ///
    /// # Errors
    /// It has no cable in the switch.
    pub fn cut(&self, place: Place) -> Result<()> {
        self.ports(place).try_for_each(|port| self.set_port(&port, "down"))
    }

    /// Pulls the cable of `place` in one network only.
    ///
    /// # Errors
    /// It has no cable there.
    pub fn cut_from(&self, place: Place, network: Network) -> Result<()> {
        self.set_port(&network.port(place), "down")
    }

    /// Plugs the cables of `place` in again and ends everything that was blocked to or from it.
    ///
    /// # Errors
    /// It has no cable in the switch.
    pub fn heal(&self, place: Place) -> Result<()> {
        self.ports(place).try_for_each(|port| self.set_port(&port, "up"))?;
        self.unblock(&self.with_all_others(place))
    }

    /// Nothing passes between `place` and anybody else, while every carrier stays up.
    ///
    /// # Errors
    /// The switch refused.
    pub fn silence(&self, place: Place) -> Result<()> {
        self.block(&self.with_all_others(place))
    }

    /// For each pair (from, to): frames from `from` no longer reach `to`; the other direction is untouched.
    ///
    /// # Errors
    /// The switch refused.
    pub fn block(&self, pairs: &[(Place, Place)]) -> Result<()> {
        if !self.has_block_table() {
            let mut nft = self.namespace(Place::Switch).command("nft")?;
            shell::feed(nft.args(["-f", "-"]), BLOCK_TABLE)?;
        }
        self.change_blocked("add", pairs)
    }

    /// Ends [`Lab::block`].
    ///
    /// # Errors
    /// The switch refused.
    pub fn unblock(&self, pairs: &[(Place, Place)]) -> Result<()> {
        if !self.has_block_table() {
            return Ok(());
        }
        // Added first, so that deleting cannot fail on one that is absent.
        self.change_blocked("add", pairs)?;
        self.change_blocked("delete", pairs)
    }

    /// Packets of more than `mtu` bytes no longer fit into the cable from the router to `remote`: the router tells
    /// whoever sent them.
    ///
    /// # Errors
    /// The router refused.
    pub fn narrow(&self, mtu: u16) -> Result<()> {
        self.namespace(Place::Router).ip(&format!("link set dev eth1 mtu {mtu}\n"))
    }

    /// Every cable passes packets of `mtu` bytes; to be called before the daemons start.
    ///
    /// # Errors
    /// A machine refused.
    pub fn widen(&self, mtu: u16) -> Result<()> {
        let set = |interface: &str| format!("link set dev {interface} mtu {mtu}\n");
        let plugged = || Place::all(self.spec.nodes).filter(|place| place.host().is_some());
        let ports: String = plugged().map(|place| set(&Network::Lan.port(place))).collect();
        self.namespace(Place::Switch).ip(&(ports + &set(Network::Lan.bridge())))?;
        self.namespace(Place::Router).ip(&set("eth1"))?;
        plugged().chain([Place::Remote]).try_for_each(|place| self.namespace(place).ip(&set("eth0")))
    }

    fn has_block_table(&self) -> bool {
        in_switch(&self.spec, "nft", &["list", "table", "bridge", "farm"]).is_ok()
    }

    fn change_blocked(&self, verb: &str, pairs: &[(Place, Place)]) -> Result<()> {
        let cables =
            pairs.iter().flat_map(|&(from, to)| self.networks_between(from, to).map(move |n| (n, from, to)));
        let elements = cables.map(|(n, from, to)| format!("\"{}\" . \"{}\"", n.port(from), n.port(to)));
        let elements = format!("{{ {} }}", elements.collect::<Vec<_>>().join(", "));
        in_switch(&self.spec, "nft", &[verb, "element", "bridge", "farm", "blocked", &elements]).map(drop)
    }

    fn with_all_others(&self, place: Place) -> Vec<(Place, Place)> {
        let others = Place::all(self.spec.nodes).filter(|other| other.host().is_some() && *other != place);
        others.flat_map(|other| [(place, other), (other, place)]).collect()
    }

    fn networks_between(&self, a: Place, b: Place) -> impl Iterator<Item = Network> + use<> {
        let both_nodes = [a, b].iter().all(|p| matches!(p, Place::Node(_)));
        let second = self.spec.second_network && both_nodes;
        [Network::Lan].into_iter().chain(second.then_some(Network::Second))
    }

    fn ports(&self, place: Place) -> impl Iterator<Item = String> + use<> {
        self.networks_between(place, place).map(move |network| network.port(place))
    }

    fn set_port(&self, port: &str, state: &str) -> Result<()> {
        in_switch(&self.spec, "ip", &["link", "set", "dev", port, state]).map(drop)
    }
}
