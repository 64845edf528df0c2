//! What decides between this node and the one other voter: set up while they are two, carried out when they lose each other.

use std::collections::BTreeSet;
use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use farm_core::arbiter::{Arbiter, Kind, Loss, Phase, Rules};
use farm_core::id::{Generation, NodeId};
use farm_core::lease::Timing;
use farm_core::model::Role;
use farm_core::tiebreak::{Mac, TieBreak};
use farm_host::lock::{Place, Plain, Port};
use farm_host::{Netlink, links};
use tokio::sync::mpsc;

use super::Member;
use crate::daemon::random;
use crate::lease::Order;
use crate::lease::contest::{Contest, Decision, Router};
use crate::peer::PeerClients;
use crate::raft::TakeOver;

/// Pause before routers that could not be set up are tried again: an interface may come up late.
const AGAIN: Duration = Duration::from_secs(1);

/// What a contest is made from.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Plan {
    peer: NodeId,
    rules: Rules,
    kind: Kind,
    routers: Vec<(IpAddr, Mac)>,
    address: Option<IpAddr>,
    later: bool,
}

impl Plan {
    fn new(me: NodeId, peer: NodeId, timing: &Timing, tie_break: &TieBreak) -> Self {
        Self {
            peer,
            rules: Rules::of(timing),
            kind: tie_break.kind,
            routers: tie_break.routers.iter().map(|(ip, mac)| (*ip, *mac)).collect(),
            address: tie_break.address,
            later: me > peer,
        }
    }
}

/// The link on which `router` is, with the own link address there.
///
/// # Errors
/// That there is none.
pub async fn link_to(router: IpAddr) -> io::Result<(u32, Mac)> {
    let netlink = Netlink::open().map_err(io::Error::other)?;
    let all = links::list(&netlink).await.map_err(io::Error::other)?;
    let link = all.iter().find(|link| link.addresses.iter().any(|a| a.contains(&router)));
    link.map(|link| (link.ifindex, link.mac)).ok_or_else(|| {
        io::Error::other(format!("{router} is in no network of this machine: it must be on a link of it"))
    })
}

/// A contest that the lease thread has.
struct Open {
    plan: Plan,
    /// What it decides; of an earlier one nothing comes here.
    decided: mpsc::UnboundedReceiver<Decision>,
    /// Written down for it, and neither acted by nor taken back.
    written: Option<TakeOver>,
}

/// The next decision, if there is somebody to make one.
async fn next(open: &mut Option<Open>) -> Decision {
    if let Some(open) = open
        && let Some(decision) = open.decided.recv().await
    {
        return decision;
    }
    std::future::pending().await
}

async fn routers(plan: &Plan) -> io::Result<Vec<Router>> {
    let mut opened = Vec::new();
    for (router, mac) in &plan.routers {
        opened.push(match plan.address {
            None => Router::Plain(Plain::open(*router)?),
            Some(address) => Router::Lock(Port::open(place(address, *router, *mac).await?)?),
        });
    }
    Ok(opened)
}

/// Where the lock of a router is, seen from this machine.
///
/// # Errors
/// It is not on a link of it, or not of IPv4.
pub async fn place(address: IpAddr, router: IpAddr, router_mac: Mac) -> io::Result<Place> {
    let (IpAddr::V4(address), IpAddr::V4(v4)) = (address, router) else {
        return Err(io::Error::other("only addresses of IPv4 can be claimed"));
    };
    let (ifindex, own) = link_to(router).await?;
    Ok(Place { ifindex, own, address, router: v4, router_mac })
}

impl Member {
    /// Keeps the contest as the state wants it, and carries out what it decides. Ends with Raft.
    pub(super) async fn hold_contests(self: Arc<Self>) {
        let (mut state, mut role) = (self.raft.state(), self.raft.role());
        let mut open: Option<Open> = None;
        loop {
            state.mark_unchanged();
            role.mark_unchanged();
            let plan = self.plan();
            if plan.as_ref() != open.as_ref().map(|open| &open.plan) {
                self.close(open.take()).await;
                open = self.open(plan.clone()).await;
            }
            let failed = plan.is_some() && open.is_none();
            let again =
                async { if failed { tokio::time::sleep(AGAIN).await } else { std::future::pending().await } };
            tokio::select! {
                biased;
                decision = next(&mut open) => self.carry_out(decision, open.as_mut()).await,
                changed = state.changed() => if changed.is_err() { return },
                changed = role.changed() => if changed.is_err() { return },
                () = again => {}
            }
        }
    }

    /// `None` where nothing can decide: others vote, too, or nothing was set, or it was not rehearsed.
    fn plan(&self) -> Option<Plan> {
        let snapshot = self.snapshot();
        let state = &snapshot.state;
        let peer = state.peer_of(self.me)?;
        let pair = BTreeSet::from([self.me, peer]);
        let serves = state.nodes.get(&self.me).is_some_and(|me| me.role == Role::Server);
        let tie_break = state.tie_break.as_ref().filter(|t| t.idle(&pair, state.profile).is_none())?;
        let both = self.role().voters == pair;
        // Who restarts as planned is silent for longer than this could wait, and serves all the same.
        let planned = pair.iter().any(|id| state.restarting(*id).is_some());
        (serves && both && !planned).then(|| Plan::new(self.me, peer, &Timing::of(state.profile), tie_break))
    }

    /// Sets up what is planned; what keeps it from that is shown.
    async fn open(&self, plan: Option<Plan>) -> Option<Open> {
        let routers = match &plan {
            Some(plan) => routers(plan).await.map(Some),
            None => Ok(None),
        };
        self.contest.say(routers.as_ref().err().map(ToString::to_string));
        let (plan, routers) = plan.zip(routers.ok().flatten())?;
        let arbiter = Arbiter::new(plan.rules, plan.kind, routers.len(), plan.later);
        let gate = self.raft.gate().clone();
        let hush = Arc::new(move |hushed| gate.hush(hushed));
        let (decide, decided) = mpsc::unbounded_channel();
        let phase = self.contest.phase.clone();
        let contest = Contest::new(plan.peer, arbiter, routers, hush, decide, phase);
        self.lease.give(Order::Contest(Some(Box::new(contest))));
        Some(Open { plan, decided, written: None })
    }

    /// Ends a contest. What it wrote down and did not act by is taken back: nobody else would.
    async fn close(&self, open: Option<Open>) {
        let Some(open) = open else { return };
        self.lease.give(Order::Contest(None));
        if open.written.is_some() {
            self.take_back().await;
        }
    }

    async fn carry_out(&self, decision: Decision, open: Option<&mut Open>) {
        let Some(open) = open else { return };
        match decision {
            Decision::Record => match self.write_down(open.plan.peer).await {
                Ok(decision) => {
                    open.written = Some(decision);
                    self.lease.give(Order::Recorded);
                }
                Err(why) => {
                    self.note("take_over_refused", why);
                    self.lease.give(Order::Refused);
                }
            },
            Decision::TakeOver => {
                let Some(decision) = open.written.take() else { return };
                self.lease.give(Order::Generation(decision.generation));
                if let Err(error) = self.raft.act(decision).await {
                    tracing::error!(%error, "not taken over");
                }
            }
            Decision::Withdraw => {
                open.written = None;
                self.take_back().await;
            }
        }
    }

    /// A record that stayed would be acted by after a restart.
    async fn take_back(&self) {
        if let Err(error) = self.raft.withdraw().await {
            tracing::error!(%error, "the decision that was lost is still written down");
            std::process::abort();
        }
    }

    async fn write_down(&self, peer: NodeId) -> Result<TakeOver, String> {
        self.raft.eligible(peer).await.map_err(|e| e.to_string())?;
        let nonce = u64::from_le_bytes(random().map_err(|p| p.fact)?);
        let number = self.raft.gate().generation().number + 1;
        let generation = Generation { number, survivor: self.me, nonce };
        let decision = TakeOver { generation, overruled: BTreeSet::from([peer]) };
        self.raft.record(&decision).await.map_err(|e| e.to_string())?;
        Ok(decision)
    }

    /// Connections to the other members.
    pub(crate) fn peers(&self) -> &PeerClients {
        &self.proposer.peers
    }

    /// Tells what became of contests: somebody will ask.
    pub(super) async fn tell_contests(self: Arc<Self>) {
        let mut phases = self.contest.phase.subscribe();
        while phases.changed().await.is_ok() {
            let phase = *phases.borrow_and_update();
            let peer = |id: NodeId| self.snapshot().state.name_of(id);
            let other = self.snapshot().state.peer_of(self.me).map_or_else(|| "its peer".into(), peer);
            match phase {
                Phase::Together | Phase::Recording { .. } => {}
                Phase::Contest { .. } => {
                    self.note("contest_begun", format!("{other} is silent: the tie-break is asked"));
                }
                Phase::Alone => self.note("contest_won", format!("this node goes on without {other}")),
                Phase::Spent { loss: Loss::Heard, .. } => {
                    self.note("contest_over", format!("{other} was heard after all"));
                }
                Phase::Spent { loss, .. } => {
                    self.note("contest_lost", format!("this node does not go on alone: {}", loss.text()));
                }
            }
        }
    }
}

/// How the contest stands, for people.
#[derive(Debug)]
pub struct Standing {
    /// Where it is.
    pub phase: tokio::sync::watch::Sender<Phase>,
    trouble: std::sync::Mutex<Option<String>>,
}

impl Default for Standing {
    fn default() -> Self {
        Self { phase: tokio::sync::watch::Sender::new(Phase::Together), trouble: std::sync::Mutex::default() }
    }
}

impl Standing {
    fn say(&self, trouble: Option<String>) {
        *super::lock(&self.trouble) = trouble;
    }

    /// Why no router can be asked.
    #[must_use]
    pub fn trouble(&self) -> Option<String> {
        super::lock(&self.trouble).clone()
    }
}
