//! This node's part in a planned restart of its daemon (DESIGN §4, L8), as the state asks for it.
//!
//! ```text
//! RestartBegin of this run ─▶ check the program ─▶ the lease is long ─▶ somebody else leads ─▶ become the program
//! RestartBegin of an earlier run ─▶ the filter works with the newest table, under a lease of this run ─▶ RestartEnd
//! ```
//! What goes wrong before the last step of the first line ends the restart and is told; nothing has changed then.

use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use farm_core::command::Body;
use farm_core::restart::Restart;
use farm_core::time::{BootTime, Span};
use farm_dataplane::clock::boot_now;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep, timeout};

use crate::member::Member;
use crate::replace::Program;

/// A lease that has not grown within so long is not granted by a majority.
const LEASE_WAIT: Duration = Duration::from_secs(2);
/// How often the own lease is looked at.
const LEASE_EVERY: Duration = Duration::from_millis(5);

/// A request to become the program on disk; answered only when that failed.
pub type Replace = oneshot::Sender<io::Error>;

/// Carries out the restarts of one node.
pub struct Restarts {
    /// The node.
    pub member: Arc<Member>,
    /// What to become.
    pub program: Program,
    /// Whoever can end this process.
    pub main: mpsc::Sender<Replace>,
    /// Last entry of the log when this run began.
    pub found: u64,
}

impl Restarts {
    /// Runs until Raft ends.
    pub async fn run(self) {
        while let Some(restart) = self.next().await {
            if restart.entry.index <= self.found {
                self.be_back(&restart).await;
            } else {
                // Where it succeeds this process is another one by now.
                let Err(why) = self.carry_out(&restart).await;
                self.member.note("restart_failed", why);
            }
            self.member.insist(Body::RestartEnd { node: self.member.me, begun: restart.entry }).await;
        }
    }

    /// The next restart of this node that is not over.
    async fn next(&self) -> Option<Restart> {
        let mut state = self.member.states();
        let open = state.wait_for(|s| s.state.restarting(self.member.me).is_some()).await.ok()?;
        open.state.restarting(self.member.me).copied()
    }

    async fn carry_out(&self, restart: &Restart) -> Result<Infallible, String> {
        self.program.check(self.member.snapshot().state.level).await?;
        let least = Span(restart.lease.0 / 2);
        if timeout(LEASE_WAIT, self.lease_of(least)).await.is_err() {
            return Err(format!("a majority of the electors grants no lease of {}", restart.lease));
        }
        // One that does not ask for it in time serves nobody while this elector is away; that is no reason to stay.
        if restart.everybody && timeout(LEASE_WAIT, self.all_have(restart.lease)).await.is_err() {
            self.member.note("restart_hasty", "not every node has asked for a longer lease");
        }
        self.member.let_another_lead().await;
        self.member.note("restarting", format!("becomes {}", self.program.path().display()));
        let (failed, told) = oneshot::channel();
        self.main.send(failed).await.map_err(|_| "the daemon is stopping".to_owned())?;
        let error = told.await.map_err(|_| "the daemon is stopping".to_owned())?;
        Err(format!("{} cannot be run: {error}", self.program.path().display()))
    }

    /// Returns when the lease lasts for at least so long.
    async fn lease_of(&self, least: Span) {
        while BootTime(self.member.lease.deadline()).since(BootTime(boot_now())) < least {
            sleep(LEASE_EVERY).await;
        }
    }

    /// Returns when every node that is heard has asked this elector for a lease of that length, which it grants by now.
    async fn all_have(&self, lease: Span) {
        let (member, since) = (&self.member, BootTime(boot_now()));
        let has = |node| member.heard(node).is_some_and(|h| h.at > since && h.lease >= lease);
        let waits = |node| node != member.me && member.absence(node).is_none() && !has(node);
        while member.snapshot().state.nodes.keys().any(|node| waits(*node)) {
            sleep(LEASE_EVERY).await;
        }
    }

    /// Returns when this run serves as the one before did, or cannot within the lease of that one.
    async fn be_back(&self, restart: &Restart) {
        let end = Instant::now() + Duration::from_nanos(restart.lease.0);
        let serves = || {
            let member = &self.member;
            let current = member.lease.applied() >= member.snapshot().state.epoch;
            current && member.host.sound() && member.lease.deadline() > boot_now()
        };
        while !serves() && Instant::now() < end {
            sleep(LEASE_EVERY).await;
        }
    }
}
