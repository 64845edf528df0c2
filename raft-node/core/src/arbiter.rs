//! Which of exactly two voters goes on when they have lost each other (DESIGN §5): the one that a router answers.
//!
//! In `exclusive` mode the router's neighbour table is a lock: it holds one link address for the arbitration address, so
//! that answers reach only the last node that claimed it. Possession is measured by when pings that were answered had been
//! *sent*: whatever a pause, a queue or a late answer pretends, the sending lies before.
//!
//! Both cannot win. A claim starts within `back` of the sending of the last message that the other one answered, and its
//! first answer is to a ping sent within `gap` of that. Who wins has heard nothing for `quiet` before its claim, answers
//! nothing from then on, and has held the lock for `hold`. With k(back + gap) < quiet + hold, k the ratio of the fastest to
//! the slowest clock, the other one's first answer, if it ever has one, lies within that possession, and breaks it.

use crate::lease::Timing;
use crate::lease::timing::{EPSILON, RATE_ERROR_PERCENT};
use crate::time::{BootTime, Span};

/// Renewals within which a claim must start, from the last one that was answered: [`Timing::silence`], one renewal between
/// that answer and the last word of the peer, and one for the node that waits.
const BACK_RENEWALS: u64 = 5;
/// Shortest gap: two pings, one of which a router may drop.
const GAP_MIN: Span = Span::millis(40);

/// Lengths of time of a contest.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Rules {
    /// The peer is not heard for so long before a claim.
    pub quiet: Span,
    /// A claim starts so long after the last round trip at the latest.
    pub back: Span,
    /// Between two pings that were answered, and since the last one, at most.
    pub gap: Span,
    /// How long the lock is held before anything is done by it.
    pub hold: Span,
    /// Between two pings.
    pub ping: Span,
}

impl Rules {
    /// Those of a timing.
    #[must_use]
    pub fn of(timing: &Timing) -> Self {
        let gap = GAP_MIN.max(Span(timing.renewal.0 * 2 / 5));
        let (quiet, back) = (timing.silence(), Span(timing.renewal.0 * BACK_RENEWALS));
        let stretched = (back + gap).0 * (100 + RATE_ERROR_PERCENT);
        let other = Span::millis(stretched.div_ceil((100 - RATE_ERROR_PERCENT) * 1_000_000));
        let hold = Span(other.0 - quiet.0) + EPSILON;
        Self { quiet, back, gap, hold, ping: Span(gap.0 / 2) }
    }
}

/// What makes the decision.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Kind {
    /// A router answers a ping. Both sides may reach one and not each other: then both go on.
    Plain,
    /// A router answers only the one that claimed an address last.
    Exclusive,
}

/// What is to be done.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Act {
    /// Claim the address at this router, then ping it.
    Claim(usize),
    /// Ping this router.
    Ping(usize),
    /// Write the decision down.
    Record,
    /// Go on alone: it is written down, and still holds.
    TakeOver,
    /// Take back what was written down: nothing was done by it.
    Withdraw,
}

/// Why a contest was lost, or none begun.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Loss {
    /// No router answered in time, or one stopped answering: it is down, cut off, or the peer has claimed the address.
    Unanswered,
    /// The peer claims the address.
    Claimed,
    /// The peer was heard after all.
    Heard,
    /// Others vote, or are about to.
    Ineligible,
}

/// Where a contest stands.
///
/// ```text
///  Together ── silence, soon after a round trip ─▶ Contest ── held ─▶ Recording ── durable, still held ─▶ Alone
///     ▲                                              │ lost             │ lost: Withdraw
///     └────────────── a later round trip ─────────── Spent ◀────────────┘
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Phase {
    /// There is nothing to decide, or it is too late to begin.
    Together,
    /// Since then nothing is answered to the peer, and the routers are asked.
    Contest {
        /// When it began.
        since: BootTime,
    },
    /// The decision is being written down.
    Recording {
        /// When the contest began.
        since: BootTime,
        /// Why it must be taken back.
        lost: Option<Loss>,
    },
    /// This node goes on without its peer.
    Alone,
    /// The one claim of this loss of contact is used up.
    Spent {
        /// When it began.
        since: BootTime,
        /// Why.
        loss: Loss,
    },
}

/// What a router has answered.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
struct Possession {
    /// When the first answered ping was sent.
    first: Option<BootTime>,
    /// When the last answered one was sent.
    last: BootTime,
    lost: bool,
}

/// The contest of one node with one peer over one or more routers.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Arbiter {
    rules: Rules,
    kind: Kind,
    /// This node waits for a moment before it claims, so that two rarely claim at once.
    later: bool,
    phase: Phase,
    /// When the last message that the peer answered was sent.
    contact: Option<BootTime>,
    heard: BootTime,
    routers: Vec<Possession>,
    next_ping: BootTime,
}

impl Arbiter {
    /// A node that has heard nothing yet: it has to, before it can claim anything.
    #[must_use]
    pub fn new(rules: Rules, kind: Kind, routers: usize, later: bool) -> Self {
        Self {
            rules,
            kind,
            later,
            phase: Phase::Together,
            contact: None,
            heard: BootTime(0),
            routers: vec![Possession::default(); routers],
            next_ping: BootTime(0),
        }
    }

    /// Where it stands.
    #[must_use]
    pub fn phase(&self) -> Phase {
        self.phase
    }

    /// Whether no answer may leave for the peer.
    #[must_use]
    pub fn hushed(&self) -> bool {
        match self.phase {
            Phase::Contest { .. } | Phase::Recording { .. } | Phase::Alone => true,
            Phase::Together | Phase::Spent { .. } => false,
        }
    }

    /// Whether `router` is asked, and answers.
    #[must_use]
    pub fn holds(&self, router: usize, now: BootTime) -> bool {
        self.routers.get(router).is_some_and(|r| {
            let fresh = now.since(r.last) <= self.rules.gap || planted!(GapIgnored);
            r.first.is_some() && !r.lost && fresh
        })
    }

    /// When [`Arbiter::tick`] is due; `None`: not before something else happens.
    #[must_use]
    pub fn due(&self, now: BootTime) -> Option<BootTime> {
        match self.phase {
            Phase::Together => {
                let (begin, latest) = (self.heard + self.patience(), self.contact? + self.rules.back);
                (begin.max(now) <= latest).then_some(begin)
            }
            Phase::Contest { .. } | Phase::Recording { .. } => Some(self.next_ping),
            Phase::Alone | Phase::Spent { .. } => None,
        }
    }

    /// The peer answered what was sent to it then.
    pub fn answered(&mut self, sent: BootTime) {
        self.contact = self.contact.max(Some(sent));
        if let Phase::Spent { since, .. } = self.phase
            && sent > since
        {
            self.phase = Phase::Together;
        }
    }

    /// Something of the peer's came, of this generation.
    pub fn heard(&mut self, now: BootTime) {
        self.heard = self.heard.max(now);
        self.lose(Loss::Heard);
    }

    /// Somebody else claims the address at `router`.
    pub fn foreign(&mut self, router: usize) {
        if let Some(router) = self.routers.get_mut(router) {
            router.lost = true;
        }
        if !self.possible() {
            self.lose(Loss::Claimed);
        }
    }

    /// `router` answered the ping that was sent to it then.
    pub fn pong(&mut self, router: usize, sent: BootTime, now: BootTime) {
        let (Some(since), gap) = (self.since(), self.rules.gap) else { return };
        let sent = if planted!(PossessionByReceipt) { now } else { sent };
        let Some(router) = self.routers.get_mut(router).filter(|r| !r.lost && sent >= since) else { return };
        match router.first {
            None => router.first = Some(sent),
            // An answer to a ping that was sent too long after the one before proves nothing of what lay between.
            Some(_) if sent.since(router.last) > gap && !planted!(GapIgnored) => router.lost = true,
            Some(_) => {}
        }
        router.last = router.last.max(sent);
    }

    /// What is due. `eligible`: exactly this node and its peer vote, and the routers are known to work as locks.
    pub fn tick(&mut self, now: BootTime, eligible: bool) -> Vec<Act> {
        match self.phase {
            Phase::Together if eligible && self.may_begin(now) => self.begin(now),
            Phase::Contest { since } => self.contest(now, since),
            Phase::Recording { .. } => {
                self.forfeit(now);
                self.ping(now)
            }
            Phase::Together | Phase::Alone | Phase::Spent { .. } => Vec::new(),
        }
    }

    /// The decision is written down: it holds, or is taken back.
    pub fn recorded(&mut self, now: BootTime) -> Vec<Act> {
        let Phase::Recording { since, lost } = self.phase else { return Vec::new() };
        self.forfeit(now);
        let lost = lost.or((!self.wins(now)).then_some(Loss::Unanswered));
        match lost {
            Some(loss) => {
                self.phase = Phase::Spent { since, loss };
                vec![Act::Withdraw]
            }
            None => {
                self.phase = Phase::Alone;
                vec![Act::TakeOver]
            }
        }
    }

    /// The decision must not be made: others vote, too. Nothing was written down.
    pub fn refused(&mut self) {
        if let Some(since) = self.since() {
            self.phase = Phase::Spent { since, loss: Loss::Ineligible };
        }
    }

    fn patience(&self) -> Span {
        self.rules.quiet + if self.later { self.rules.ping } else { Span::ZERO }
    }

    fn may_begin(&self, now: BootTime) -> bool {
        let in_time = self.contact.is_some_and(|at| now.since(at) <= self.rules.back || planted!(LateClaim));
        in_time && now.since(self.heard) >= self.patience()
    }

    fn begin(&mut self, now: BootTime) -> Vec<Act> {
        self.phase = Phase::Contest { since: now };
        self.routers.fill(Possession::default());
        self.next_ping = now;
        self.ping(now)
    }

    fn contest(&mut self, now: BootTime, since: BootTime) -> Vec<Act> {
        self.forfeit(now);
        if !self.possible() {
            self.phase = Phase::Spent { since, loss: Loss::Unanswered };
            return Vec::new();
        }
        let mut acts = self.ping(now);
        if self.wins(now) {
            self.phase = Phase::Recording { since, lost: None };
            acts.push(Act::Record);
        }
        acts
    }

    fn ping(&mut self, now: BootTime) -> Vec<Act> {
        if now < self.next_ping {
            return Vec::new();
        }
        self.next_ping = now + self.rules.ping;
        let asked = self.routers.iter().enumerate().filter(|(_, router)| !router.lost);
        let act = |(number, router): (usize, &Possession)| {
            // Who has been answered once and is not any more has lost it, and must not take it back.
            let claims = self.kind == Kind::Exclusive && (router.first.is_none() || planted!(ClaimAgain));
            if claims { Act::Claim(number) } else { Act::Ping(number) }
        };
        asked.map(act).collect()
    }

    /// Whoever did not answer in time is lost.
    fn forfeit(&mut self, now: BootTime) {
        let (Some(since), gap) = (self.since(), self.rules.gap) else { return };
        for router in self.routers.iter_mut().filter(|_| !planted!(GapIgnored)) {
            let last = router.first.map_or(since, |_| router.last);
            router.lost |= now.since(last) > gap;
        }
    }

    fn wins(&self, now: BootTime) -> bool {
        let hold = if planted!(NoHold) { Span::ZERO } else { self.rules.hold };
        let held = |number: &usize| {
            let router = &self.routers[*number];
            self.holds(*number, now) && router.first.is_some_and(|first| router.last.since(first) >= hold)
        };
        self.suffices((0..self.routers.len()).filter(held).count())
    }

    fn possible(&self) -> bool {
        self.suffices(self.routers.iter().filter(|r| !r.lost).count())
    }

    /// Two nodes never have a majority each.
    fn suffices(&self, count: usize) -> bool {
        match self.kind {
            Kind::Plain => count > 0,
            Kind::Exclusive => count * 2 > self.routers.len(),
        }
    }

    fn since(&self) -> Option<BootTime> {
        match self.phase {
            Phase::Contest { since } | Phase::Recording { since, .. } => Some(since),
            Phase::Together | Phase::Alone | Phase::Spent { .. } => None,
        }
    }

    fn lose(&mut self, loss: Loss) {
        self.phase = match self.phase {
            Phase::Contest { since } => Phase::Spent { since, loss },
            Phase::Recording { since, lost } => Phase::Recording { since, lost: lost.or(Some(loss)) },
            phase @ (Phase::Together | Phase::Alone | Phase::Spent { .. }) => phase,
        };
    }
}

impl Loss {
    /// In words.
    #[must_use]
    pub const fn text(self) -> &'static str {
        match self {
            Self::Unanswered => "no router answered, or not to the end",
            Self::Claimed => "another node has claimed the address",
            Self::Heard => "its peer was heard after all",
            Self::Ineligible => "others vote, or are about to",
        }
    }
}
