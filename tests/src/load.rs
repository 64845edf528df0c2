//! Load on a farm under the eyes of the witness, and the case that is made of what was seen.

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use anyhow::{Result, ensure};
use farm_lab::witness::{
    BootTime, Case, Content, Criterion, Expected, Heading, RunningSyns, SYNS_MIN, Segment, Side, Sighting,
    Syn, SynStream, Testimony, Verdict, Window, Witness, acceptances, judge, outcomes,
};
use farm_lab::{FIRST_VIP, Family, Place, WEB_PORT};

use crate::farm::{Farm, LIMIT};

/// SYNs per second: with three nodes 200 for each.
const RATE: u32 = 600;
/// Clients: each asks about every second, so that a change of its owner is seen.
const CLIENTS: usize = 615;
/// Attempts at a node around a change: more than the fewest that prove something.
const ENOUGH: usize = SYNS_MIN + 50;
/// Time around a change in which attempts count: enough of them are awaited before and after.
const AROUND: Duration = Duration::from_secs(10);
/// Longest lease of the profile that labs use, counted from a renewal that was sent before a daemon stopped.
pub const LEASE: Duration = Duration::from_millis(100);
/// From the clock's reading in the filter to the answer on the cable: a turn of the softirq on a busy machine.
const ANSWER: Duration = Duration::from_millis(50);

/// Longest way of an answer.
const UNDER_WAY: Duration = Duration::from_millis(200);

/// A stream of SYNs and the witness.
#[derive(Debug)]
pub struct Load<'a> {
    farm: &'a Farm,
    witness: Witness,
    syns: RunningSyns,
    service: SocketAddr,
    sources: Vec<SocketAddr>,
    changes: Vec<Expected>,
    closed: Vec<Window>,
    unfiltered: Vec<Window>,
}

/// What was seen of a load.
#[derive(Debug)]
pub struct Seen {
    /// By the taps.
    pub testimony: Testimony,
    /// What was asked.
    pub sent: Vec<Syn>,
    /// What is to be judged.
    pub case: Case,
}

impl Seen {
    /// The judgement.
    #[must_use]
    pub fn verdict(&self) -> Verdict {
        judge(&self.testimony, &self.case)
    }

    /// The attempts that nobody answered, but for those at the very end, whose answers may still be on their way.
    #[must_use]
    pub fn unanswered(&self) -> Vec<Syn> {
        let accepted = acceptances(&self.testimony.sightings, &self.case.vips);
        let end = self.sent.last().map_or(BootTime(0), |last| last.at - UNDER_WAY);
        let lost = outcomes(&self.sent, &accepted).into_iter().filter(|o| o.answer.is_none());
        lost.map(|o| o.syn).filter(|syn| syn.at <= end).collect()
    }
}

impl Seen {
    /// Resets in the connections to `service`, whoever sent them.
    #[must_use]
    pub fn resets(&self, service: SocketAddr) -> Vec<Sighting> {
        let of_it = |segment: &Segment| segment.source == service || segment.destination == service;
        let on_cables = |s: &&Sighting| s.side == Side::Cable && s.heading == Heading::Leaving;
        let reset = |s: &&Sighting| match s.frame.content {
            Content::Tcp(segment) => of_it(&segment) && segment.flags & Segment::RST != 0,
            _ => false,
        };
        self.testimony.sightings.iter().filter(on_cables).filter(reset).copied().collect()
    }
}

impl<'a> Load<'a> {
    /// Starts asking for the web service on the first virtual IP, from `from`, which is `client` or `remote`.
    ///
    /// # Errors
    /// Witness or stream cannot start.
    pub fn start(farm: &'a Farm, from: Place) -> Result<Self> {
        Self::on(farm, from, FIRST_VIP)
    }

    /// The same on `vip`.
    ///
    /// # Errors
    /// As [`Load::start`].
    pub fn on(farm: &'a Farm, from: Place, vip: IpAddr) -> Result<Self> {
        let witness = Witness::start(farm, &[vip])?;
        let (service, sources) =
            (SocketAddr::new(vip, WEB_PORT), SynStream::clients(from, Family::of(vip), CLIENTS));
        let syns = SynStream { from, sources: sources.clone(), service, rate: RATE }.start(farm)?;
        let (changes, closed, unfiltered) = (Vec::new(), Vec::new(), Vec::new());
        let mut load = Self { farm, witness, syns, service, sources, changes, closed, unfiltered };
        // A voter that serves nothing has no filter: what floods reaches it as it reaches any other machine.
        let unfiltered = farm.nodes().filter(|node| farm.spec().is_witness(*node));
        unfiltered.for_each(|node| load.expect_filter_gone(node, BootTime::default()));
        Ok(load)
    }

    /// The witness.
    #[must_use]
    pub fn witness(&self) -> &Witness {
        &self.witness
    }

    /// Waits until each of `nodes` has answered enough attempts from now on.
    ///
    /// # Errors
    /// One does not.
    pub fn await_answers_of(&self, nodes: &[Place]) -> Result<()> {
        let now = BootTime::now();
        nodes.iter().try_for_each(|node| {
            let what = format!("{ENOUGH} answers of {node}");
            self.await_count(&what, ENOUGH, |s| s.at > now && s.place == *node && self.opens(s).is_some())
        })
    }

    /// Waits until every client has been answered from now on: then every one of their buckets is served.
    ///
    /// # Errors
    /// One is not.
    pub fn await_everybody(&self) -> Result<()> {
        let now = BootTime::now();
        let missing: RefCell<BTreeSet<SocketAddr>> = RefCell::new(self.sources.iter().copied().collect());
        let served = |s: &Sighting| {
            if let Some(client) = self.opens(s).filter(|_| s.at > now) {
                missing.borrow_mut().remove(&client);
            }
            missing.borrow().is_empty()
        };
        self.witness.await_sighting("an answer to every client", LIMIT, served).map(drop)
    }

    /// Waits until enough SYNs have arrived at `node` since then, whatever it does with them.
    fn await_syns_at(&self, node: Place, since: BootTime) -> Result<()> {
        let arrives = |s: &Sighting| {
            s.at > since
                && s.place == node
                && s.side == Side::Cable
                && s.heading == Heading::Arriving
                && self.is_syn(s)
        };
        self.await_count(&format!("{ENOUGH} SYNs at {node}"), ENOUGH, arrives)
    }

    fn await_count(&self, what: &str, count: usize, counts: impl Fn(&Sighting) -> bool) -> Result<()> {
        let seen = Cell::new(0);
        let enough = |s: &Sighting| {
            seen.set(seen.get() + usize::from(counts(s)));
            seen.get() >= count
        };
        self.witness.await_sighting(what, LIMIT, enough).map(drop)
    }

    /// From `old` to `new` buckets change at `at`: there must have been load on both.
    pub fn expect_change(&mut self, old: Place, new: Place, at: BootTime) {
        self.changes.push(Expected { old, new, at, around: AROUND });
    }

    /// Waits for enough SYNs at `node`, from now on and since it closed; it must not have accepted any.
    ///
    /// # Errors
    /// They do not come.
    pub fn expect_closed(&mut self, node: Place, from: BootTime) -> Result<()> {
        self.await_syns_at(node, from.max(BootTime::now()))?;
        self.closed.push(Window { node, from, until: BootTime::now() });
        Ok(())
    }

    /// Since then, and until now, the test itself had taken the filter of `node` away: deleted its pins, detached its
    /// link, stopped its daemon in good order, cut its power. What the tap on the node saw meanwhile proves nothing,
    /// for the guard comes after it; the cable is judged all the same.
    pub fn expect_no_filter(&mut self, node: Place, since: BootTime) {
        self.unfiltered.push(Window { node, from: since, until: BootTime::now() });
    }

    /// As [`Load::expect_no_filter`], and nobody puts it back before the load ends.
    pub fn expect_filter_gone(&mut self, node: Place, since: BootTime) {
        self.unfiltered.push(Window { node, from: since, until: BootTime(u64::MAX) });
    }

    /// When a node whose daemon does nothing since `stopped` must have closed, its last answers being through.
    #[must_use]
    pub fn closed_since(stopped: BootTime) -> BootTime {
        stopped + LEASE + ANSWER
    }

    /// Ends the load, and every promise was upheld. `teller` tells when the epochs were.
    ///
    /// # Errors
    /// As [`Load::stop`], or what was broken.
    pub fn upheld(self, teller: Place) -> Result<Seen> {
        let seen = self.stop(teller)?;
        let verdict = seen.verdict();
        ensure!(verdict == Verdict::Upheld, "{verdict:?}");
        Ok(seen)
    }

    /// Ends the load. `teller` tells when the epochs were.
    ///
    /// # Errors
    /// The stream or a tap had failed, or too little was seen of a closed node.
    pub fn stop(self, teller: Place) -> Result<Seen> {
        let epochs = self.farm.epochs(teller)?;
        let vip = self.service.ip();
        let virtual_mac = self.farm.virtual_mac(vip)?;
        let sent = self.syns.stop()?;
        let testimony = self.witness.stop()?;
        for closed in &self.closed {
            let count = testimony.syns(closed.node, vip, closed.from, closed.until);
            ensure!(
                count >= SYNS_MIN,
                "void: only {count} SYNs arrived at {} while it was closed",
                closed.node
            );
        }
        let epochs = Some((Criterion::SourcePort, epochs));
        let Self { changes, closed, unfiltered, .. } = self;
        let vips = vec![vip];
        let case = Case { vips, changes, closed, unfiltered, epochs, virtual_mac, ..Case::default() };
        Ok(Seen { testimony, sent, case })
    }

    /// The client to whom a node says that its connection is open.
    fn opens(&self, sighting: &Sighting) -> Option<SocketAddr> {
        let Content::Tcp(segment) = sighting.frame.content else { return None };
        let leaves_a_node = sighting.side == Side::Cable
            && sighting.heading == Heading::Leaving
            && matches!(sighting.place, Place::Node(_));
        (leaves_a_node && segment.source == self.service && segment.is(Segment::SYN | Segment::ACK))
            .then_some(segment.destination)
    }

    fn is_syn(&self, sighting: &Sighting) -> bool {
        let Content::Tcp(segment) = sighting.frame.content else { return false };
        segment.destination == self.service && segment.is(Segment::SYN)
    }
}
