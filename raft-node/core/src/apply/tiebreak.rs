//! Commands about what decides between two voters.

use core::net::IpAddr;

use super::nodes::own_addresses;
use super::{Done, Refusal, ensure, happened};
use crate::arbiter::Kind;
use crate::event;
use crate::model::is_unicast;
use crate::state::ClusterState;
use crate::tiebreak::{ROUTERS_MAX, Rehearsal, TieBreak};

const CURE: &str = "farmctl cluster tie-break --help";

/// Link addresses that more than one device answers to: VRRP (RFC 9568 §7.3), HSRP versions 1 and 2 and for IPv6, GLBP.
/// Each device would be a lock of its own.
const SHARED: [&[u8]; 6] = [
    &[0x00, 0x00, 0x5e, 0x00, 0x01],
    &[0x00, 0x00, 0x5e, 0x00, 0x02],
    &[0x00, 0x00, 0x0c, 0x07, 0xac],
    &[0x00, 0x00, 0x0c, 0x9f],
    &[0x00, 0x05, 0x73, 0xa0],
    &[0x00, 0x07, 0xb4],
];

impl ClusterState {
    pub(super) fn tie_break_set(&mut self, to: Option<&TieBreak>) -> Done {
        if let Some(to) = to {
            self.check_tie_break(to)?;
        }
        self.tie_break = to.map(|to| TieBreak { rehearsed: None, ..to.clone() });
        happened(event::Kind::TieBreakSet { to: self.tie_break.clone() })
    }

    pub(super) fn tie_break_rehearsed(&mut self, tried: &TieBreak, rehearsal: &Rehearsal) -> Done {
        let same = |now: &&mut TieBreak| TieBreak { rehearsed: None, ..(**now).clone() } == *tried;
        let now = self.tie_break.as_mut().filter(same).ok_or_else(|| {
            Refusal::new("tie_break", "another tie-break was set meanwhile", "farmctl cluster tie-break")
        })?;
        now.rehearsed = Some(rehearsal.clone());
        happened(event::Kind::TieBreakRehearsed { failure: rehearsal.failure.clone() })
    }

    fn check_tie_break(&self, to: &TieBreak) -> Result<(), Refusal> {
        let refuse = |fact: String| Refusal::new("tie_break", fact, CURE);
        let count = to.routers.len();
        ensure((1..=ROUTERS_MAX).contains(&count), || {
            refuse(format!("{count} routers are named; 1 to {ROUTERS_MAX} can be asked"))
        })?;
        to.routers.keys().try_for_each(|router| {
            ensure(is_unicast(*router), || refuse(format!("{router} is no address of a router")))?;
            self.ensure_foreign(*router)
        })?;
        match (to.kind, to.address) {
            (Kind::Plain, None) => Ok(()),
            (Kind::Plain, Some(_)) => Err(refuse("a plain tie-break claims no address".into())),
            (Kind::Exclusive, None) => Err(refuse("an exclusive tie-break needs an address to claim".into())),
            (Kind::Exclusive, Some(address)) => self.check_lock(to, address),
        }
    }

    fn check_lock(&self, to: &TieBreak, address: IpAddr) -> Result<(), Refusal> {
        let refuse = |fact: String| Refusal::new("tie_break", fact, CURE);
        ensure(is_unicast(address), || refuse(format!("{address} cannot be claimed")))?;
        ensure(!to.routers.contains_key(&address), || refuse(format!("{address} is a router's address")))?;
        self.ensure_foreign(address)?;
        let mut routers = to.routers.iter();
        let odd = routers.find(|(_, mac)| SHARED.iter().any(|prefix| mac.starts_with(prefix)));
        odd.map_or(Ok(()), |(router, _)| {
            Err(refuse(format!(
                "{router} is an address that several routers share (VRRP, HSRP, GLBP): each would be a lock of its own; name one router's own address"
            )))
        })
    }

    fn ensure_foreign(&self, ip: IpAddr) -> Result<(), Refusal> {
        let refuse = |whose: &str| Refusal::new("tie_break", format!("{ip} is {whose}"), CURE);
        ensure(!self.nodes.values().flat_map(own_addresses).any(|own| own == ip), || {
            refuse("an address of a node")
        })?;
        let vips = self.modules.values().flat_map(|m| m.vips.keys());
        ensure(!vips.into_iter().any(|vip| vip.ip == ip), || refuse("a virtual IP of this cluster"))
    }
}
