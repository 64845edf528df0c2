//! The contest with the one other voter, as the real-time thread carries it out: routers are asked, their answers and the
//! peer's go into the arbiter, and what it decides goes to who can write it down.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

use farm_core::arbiter::{Act, Arbiter, Phase};
use farm_core::id::NodeId;
use farm_core::time::BootTime;
use farm_host::lock::{Heard, Plain, Port};
use tokio::sync::{mpsc, watch};

/// Pings whose answers are of use: a contest sends less before it is lost or won.
const REMEMBERED: usize = 64;
/// Answers that are read at once from one router.
const BATCH: usize = 16;

/// A way to a router.
#[derive(Debug)]
pub enum Router {
    /// Its neighbour table is a lock.
    Lock(Port),
    /// It answers or not.
    Plain(Plain),
}

/// What the arbiter wants of those who can do it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Decision {
    /// Write it down; then [`super::Order::Recorded`] or [`super::Order::Refused`].
    Record,
    /// Act by it.
    TakeOver,
    /// Take it back.
    Withdraw,
}

/// See the module.
pub struct Contest {
    /// The one other voter.
    pub peer: NodeId,
    /// Who decides.
    pub arbiter: Arbiter,
    /// Whom it asks, in the order of its numbers.
    pub routers: Vec<Router>,
    /// Told when answers of Raft's may leave and when not.
    pub hush: Arc<dyn Fn(bool) + Send + Sync>,
    /// Who carries out what is decided.
    pub decided: mpsc::UnboundedSender<Decision>,
    /// Where it stands, for people.
    pub phase: watch::Sender<Phase>,
    pings: VecDeque<(u64, BootTime)>,
    number: u64,
}

impl Contest {
    /// Nothing is asked before the peer falls silent.
    #[must_use]
    pub fn new(
        peer: NodeId,
        arbiter: Arbiter,
        routers: Vec<Router>,
        hush: Arc<dyn Fn(bool) + Send + Sync>,
        decided: mpsc::UnboundedSender<Decision>,
        phase: watch::Sender<Phase>,
    ) -> Self {
        Self { peer, arbiter, routers, hush, decided, phase, pings: VecDeque::new(), number: 0 }
    }

    /// Descriptors to poll.
    pub(super) fn fds(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.routers.iter().map(|router| match router {
            Router::Lock(port) => port.as_fd(),
            Router::Plain(plain) => plain.as_fd(),
        })
    }

    /// Something came from the peer. Whether it may be answered.
    pub(super) fn heard(&mut self, now: BootTime) -> bool {
        self.arbiter.heard(now);
        self.settle();
        !self.arbiter.hushed()
    }

    /// The peer answered what was sent then.
    pub(super) fn answered(&mut self, sent: BootTime, now: BootTime) {
        self.arbiter.heard(now);
        self.arbiter.answered(sent);
        self.settle();
    }

    /// What was decided is written down.
    pub(super) fn recorded(&mut self, now: BootTime) {
        // What routers have answered meanwhile comes first.
        self.listen(now);
        let acts = self.arbiter.recorded(now);
        self.carry_out(&acts, now);
    }

    /// It must not be decided.
    pub(super) fn refused(&mut self) {
        self.arbiter.refused();
        self.settle();
    }

    /// Reads what routers say, and does what is due.
    pub(super) fn step(&mut self, now: BootTime) {
        self.listen(now);
        let acts = self.arbiter.tick(now, true);
        self.carry_out(&acts, now);
    }

    fn listen(&mut self, now: BootTime) {
        for number in 0..self.routers.len() {
            for _ in 0..BATCH {
                match self.routers[number].receive() {
                    Ok(Some(heard)) => self.take(number, heard, now),
                    Ok(None) => break,
                    Err(error) => {
                        tracing::debug!(%error, router = number, "a router cannot be heard");
                        break;
                    }
                }
            }
        }
    }

    fn take(&mut self, router: usize, heard: Heard, now: BootTime) {
        match heard {
            Heard::Pong(ping) => {
                if let Some((_, sent)) = self.pings.iter().find(|(number, _)| *number == ping) {
                    self.arbiter.pong(router, *sent, now);
                }
            }
            Heard::Foreign(_) => self.arbiter.foreign(router),
            Heard::Asked(question) => {
                if let Router::Lock(port) = &self.routers[router]
                    && self.arbiter.holds(router, now)
                {
                    // It asks again.
                    let _ = port.answer(&question);
                }
            }
        }
        self.settle();
    }

    fn carry_out(&mut self, acts: &[Act], now: BootTime) {
        // Before the first claim leaves.
        self.settle();
        for act in acts {
            let done = match *act {
                Act::Claim(router) => self.ask(router, true, now),
                Act::Ping(router) => self.ask(router, false, now),
                Act::Record => self.decide(Decision::Record),
                Act::TakeOver => self.decide(Decision::TakeOver),
                Act::Withdraw => self.decide(Decision::Withdraw),
            };
            if let Err(error) = done {
                tracing::debug!(%error, ?act, "not done; the contest goes on without it");
            }
        }
    }

    /// The time of a ping is read before it leaves.
    fn ask(&mut self, router: usize, claim: bool, now: BootTime) -> io::Result<()> {
        self.number += 1;
        if self.pings.len() == REMEMBERED {
            self.pings.pop_front();
        }
        self.pings.push_back((self.number, now));
        match &self.routers[router] {
            Router::Lock(port) => {
                if claim {
                    port.claim()?;
                }
                port.ping(self.number)
            }
            Router::Plain(plain) => plain.ping(self.number),
        }
    }

    fn decide(&self, decision: Decision) -> io::Result<()> {
        self.decided.send(decision).map_err(|_| io::Error::other("nobody is there to carry it out"))
    }

    fn settle(&self) {
        (self.hush)(self.arbiter.hushed());
        let phase = self.arbiter.phase();
        self.phase.send_if_modified(|shown| std::mem::replace(shown, phase) != phase);
    }
}

impl Drop for Contest {
    fn drop(&mut self) {
        (self.hush)(false);
    }
}

impl Router {
    fn receive(&self) -> io::Result<Option<Heard>> {
        match self {
            Self::Lock(port) => port.receive(),
            Self::Plain(plain) => plain.receive().map(|number| number.map(Heard::Pong)),
        }
    }
}
