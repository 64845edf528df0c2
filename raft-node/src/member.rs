//! A member of a cluster: everything that runs once this node belongs to one.
//!
//! Tasks owned, all ended by [`Member::stop`]: the driver, the follower of the state, the drain surveys, the
//! watch over guard and filter, the journal of replicated events. Each is cancel-safe: they are level-triggered.

pub mod contest;
mod fencing;
mod macs;
mod odds;
mod part;
mod record;
mod stay;

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use farm_common::layout;
use farm_core::apply::LEVEL;
use farm_core::command::{Body, Command};
use farm_core::condition::Absence;
use farm_core::id::{ClusterId, Generation, Incarnation, NodeId};
use farm_core::lease::Heard;
use farm_core::model::{ModuleName, Node, VirtualIp};
use farm_core::state::ClusterState;
use farm_core::time::{BootTime, Span};
use farm_dataplane::clock::boot_now;
use farm_proto::v1;
use farm_store::{LogStore, Store};
use futures::FutureExt;
use tokio::runtime::Runtime;
use tokio::sync::{mpsc, watch};
use tokio::task::{AbortHandle, JoinHandle, JoinSet};

use self::fencing::{Fencing, Flushes};
use crate::collect::Collector;
use crate::condition;
use crate::config::Config;
use crate::doctor::Doctor;
use crate::drill::{self, Conductor};
use crate::driver::{Driver, Feedback, INPUTS_MAX};
use crate::effects::{Effects, Means};
use crate::http::Listening;
use crate::journal::Journal;
use crate::lease::socket::{LeaseSockets, refused};
use crate::lease::{self, LeaseHandle, Observation, Order};
use crate::look::Mirror;
use crate::modules::Modules;
use crate::node::{self, FilterHost, Follower, HostView};
use crate::notify;
use crate::peer::{Lost, PeerClients, Proposed, Serving};
use crate::problem::Problem;
use crate::proposer::Proposer;
use crate::raft::{self, Endpoint, Handle, ProposeError, Role, Snapshot};
use crate::realtime;
use crate::replace::Program;
use crate::restart::{Replace, Restarts};
use crate::secret::Secret;

/// How long a planned stop waits for its buckets and flows to go elsewhere; then it stops anyway and says so. Shorter
/// than the service manager waits before it kills.
pub const HAND_OVER_MAX: Duration = Duration::from_secs(110);
/// How long this node may be behind the leader when a command has been carried out: several heartbeats.
const LEARN_MAX: Duration = Duration::from_secs(2);
/// Pace at which conditions are looked for when nobody asks.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// How long it then waits for another leader; electing one takes as long as not to wait.
const HEIR_MAX: Duration = Duration::from_secs(1);
/// A node that said nothing for this long is shown as silent: four renewals of the slowest profile.
pub const SILENT: Span = Span::millis(1000);
/// Alarms that may wait; one is as good as many.
const ALARMS_MAX: usize = 4;

/// How often the wall clock is looked at while something waits for it: it may be set.
const CLOCK_EVERY: Duration = Duration::from_secs(10);

/// One for the driver, one for the follower, which may wait for nft.
const CONTROL_THREADS: usize = 2;

/// Who this node is in its cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Belonging {
    /// The cluster.
    pub cluster: ClusterId,
    /// This node's id in it.
    pub node: NodeId,
}

/// What a member is started from.
pub struct Setup {
    /// The daemon's configuration.
    pub config: Config,
    /// The durable log.
    pub store: Store,
    /// Who this node is.
    pub belonging: Belonging,
    /// Generation that the cluster named when this node joined.
    pub generation: Generation,
    /// Election times until the log says which.
    pub timing: Option<raft::Timing>,
    /// The cluster secret.
    pub secret: Secret,
    /// The journal.
    pub journal: Arc<Journal>,
    /// This daemon's program.
    pub program: PathBuf,
    /// Where its HTTP server listens.
    pub http: Arc<Listening>,
}

/// Latest observations by node.
pub type HeardBy = Arc<Mutex<BTreeMap<NodeId, Heard>>>;

/// A running member.
pub struct Member {
    /// This node.
    pub me: NodeId,
    /// Its name and places.
    pub config: Config,
    /// Its lease.
    pub lease: LeaseHandle,
    /// Its filter and host.
    pub host: Arc<HostView>,
    /// Its journal.
    pub journal: Arc<Journal>,
    /// Applications of modules on it.
    pub modules: Arc<Modules>,
    /// What people were told.
    pub told: Arc<notify::Told>,
    /// How long its store takes to make entries durable.
    pub flushes: Arc<Flushes>,
    /// Who examines it.
    pub doctor: Arc<Doctor>,
    /// Who tells support of it.
    pub collector: Arc<Collector>,
    /// The daemon's program.
    pub program: PathBuf,
    /// Where its HTTP server listens.
    pub http: Arc<Listening>,
    /// How the contest with the one other voter stands.
    pub contest: contest::Standing,
    drills: mpsc::Sender<drill::Call>,
    raft: Handle,
    proposer: Proposer,
    heard: HeardBy,
    duplicates: Arc<node::Duplicates>,
    mirror: Mirror,
    /// Last entry of the log when this run began.
    found: u64,
    dated: condition::Dated,
    stop: watch::Sender<bool>,
    tasks: Mutex<JoinSet<()>>,
    coming_back: Mutex<Option<AbortHandle>>,
    follower: Mutex<Option<JoinHandle<()>>>,
    /// Driver and follower: what stands between an observation and the filter.
    control: Option<Runtime>,
}

impl Drop for Member {
    fn drop(&mut self) {
        if let Some(control) = self.control.take() {
            // The last reference may go away on another runtime, where blocking is not allowed.
            control.shutdown_background();
        }
    }
}

impl Member {
    /// Starts everything; the node renews, grants and serves as soon as the state says so.
    ///
    /// # Errors
    /// A [`Problem`] of the first part that cannot start.
    pub async fn start(setup: Setup) -> Result<Arc<Self>, Problem> {
        let me = setup.belonging.node;
        let listeners = bind_peers(&setup.config)?;
        setup.journal.heed(setup.store.gauge());
        let run = draw_incarnation()?;
        let (lease, observations) = start_lease(&setup, run)?;
        let (appended, appended_seen) = watch::channel(0);
        let fencing = Arc::new(Fencing::new(lease.clone(), appended));
        let raft = start_raft(&setup, fencing.clone()).await?;
        let found = *appended_seen.borrow();
        let (feedback, inputs) = mpsc::channel(INPUTS_MAX);
        let peers = PeerClients::new(raft.gate().clone(), raft.state());
        let proposer = Proposer { me, raft: raft.clone(), peers, disk: setup.store.gauge() };
        let (cluster, layout) = (setup.belonging.cluster.0, layout::LAYOUT_VERSION);
        let identity = layout::Identity { cluster, node: me.0, layout, reserved: 0 };
        let host = FilterHost::new(&setup.config, identity)
            .map_err(|e| Problem::new("no_netlink", e.to_string(), "systemctl start farmd"))?;
        let heard = HeardBy::default();
        let mirror = Mirror::new(run, lease.clone(), host.view());
        let (drills, rehearsed) = mpsc::channel(drill::CALLS_MAX);
        let doctor = Arc::new(Doctor::new(&setup, raft.state(), host.view()));
        let collector = Arc::new(Collector::new(&setup, &raft, mirror.clone(), doctor.clone()));
        let serving = Serving {
            proposer: proposer.clone(),
            mirror: mirror.clone(),
            driver: feedback.clone(),
            drills: drills.clone(),
            collector: collector.clone(),
            appended: appended_seen,
            lost: Lost { me, raft: raft.clone(), heard: heard.clone(), since: BootTime(boot_now()) },
        };
        raft.serve(listeners, Arc::new(serving)).await.map_err(|e| {
            Problem::new("bind_failed", format!("cannot answer peers: {e}"), "farmctl cluster status")
        })?;
        let member = Arc::new(Self {
            me,
            lease,
            host: host.view(),
            journal: setup.journal,
            modules: mirror.modules.clone(),
            told: mirror.told.clone(),
            doctor,
            collector,
            program: setup.program,
            http: setup.http,
            contest: contest::Standing::default(),
            drills,
            raft,
            proposer,
            heard,
            duplicates: Arc::default(),
            flushes: fencing.flushes.clone(),
            mirror,
            found,
            dated: condition::Dated::default(),
            stop: watch::channel(false).0,
            tasks: Mutex::default(),
            coming_back: Mutex::default(),
            follower: Mutex::default(),
            control: Some(control_runtime()?),
            config: setup.config,
        });
        member.run(host, observations, feedback, inputs);
        lock(&member.tasks).spawn(Conductor { member: member.clone(), calls: rehearsed }.run());
        Ok(member)
    }

    fn run(
        self: &Arc<Self>,
        host: FilterHost,
        observations: mpsc::Receiver<Observation>,
        feedback: mpsc::Sender<Feedback>,
        inputs: mpsc::Receiver<Feedback>,
    ) {
        let (announce, announcements) = mpsc::channel(1);
        let (alarm, alarms) = mpsc::channel(ALARMS_MAX);
        let effects = Effects::new(Means {
            me: self.me,
            raft: self.raft.clone(),
            lease: self.lease.clone(),
            peers: self.proposer.peers.clone(),
            back: feedback.clone(),
            announce,
            journal: self.journal.clone(),
        });
        let driver = Driver::new(self.me, self.raft.clone(), effects, self.heard.clone());
        let follower = Follower::new(self.me, self.lease.clone(), host, self.journal.clone());
        let following = follower.run(self.raft.state(), alarms, announcements, self.stop.subscribe());
        let control = self.control.as_ref().expect("it goes with the member").handle();
        *lock(&self.follower) = Some(control.spawn(vital("follower", following)));
        let mut tasks = lock(&self.tasks);
        tasks.spawn_on(vital("driver", driver.run(observations, inputs)), control);
        // A survey walks every socket of the host: it must not go before ordinary work.
        tasks.spawn(self.clone().survey(feedback));
        tasks.spawn(node::watch_host(alarm));
        let (lease, journal) = (self.lease.clone(), self.journal.clone());
        let elsewhere = self.host.elsewhere.clone();
        tasks.spawn(self.mirror.spreads.clone().run(self.me, self.raft.state(), elsewhere.clone()));
        tasks.spawn(node::watch_sockets(self.me, lease, self.raft.state(), elsewhere, journal));
        tasks.spawn(self.clone().keep_dates());
        tasks.spawn(notify::run(self.clone()));
        tasks.spawn(self.modules.clone().run(self.clone()));
        tasks.spawn(self.clone().close_at_odds());
        tasks.spawn(self.clone().end_maintenance());
        tasks.spawn(self.clone().follow_macs());
        tasks.spawn(self.clone().say_decisions());
        tasks.spawn_on(self.clone().hold_contests(), control);
        tasks.spawn(self.clone().tell_contests());
        tasks.spawn(self.clone().keep_rehearsed());
        for link in 0..self.config.links.len() {
            let member = self.clone();
            let watcher = node::DuplicatesWatcher {
                link,
                vlan: self.config.links[link].vlan,
                host: self.host.clone(),
                state: self.raft.state(),
                duplicates: self.duplicates.clone(),
                journal: self.journal.clone(),
            };
            tasks.spawn(watcher.run(self.me.0, move || member.role().leader == Some(member.me)));
        }
        tasks.spawn(record::write_events(
            self.me,
            self.raft.events(),
            self.raft.state(),
            self.journal.clone(),
        ));
    }

    /// Reports this node's sockets to whoever leads.
    async fn survey(self: Arc<Self>, own: mpsc::Sender<Feedback>) {
        let tell = |module, state| {
            let (member, own) = (self.clone(), own.clone());
            async move {
                match member.role().leader {
                    // Full: the next survey repeats it.
                    Some(leader) if leader == member.me => {
                        let _ = own.try_send(Feedback::Drain { node: member.me, module, state });
                    }
                    Some(leader) => member.proposer.peers.drain(leader, member.me, &module, &state).await,
                    None => {}
                }
            }
        };
        let drains = self.mirror.drains.clone();
        let elsewhere = self.host.elsewhere.clone();
        node::report_drains(self.me, self.lease.clone(), self.raft.state(), drains, elsewhere, tell).await;
    }

    /// The applied state.
    #[must_use]
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.raft.state().borrow().clone()
    }

    /// The applied state, each time it changes.
    #[must_use]
    pub fn states(&self) -> watch::Receiver<Arc<Snapshot>> {
        self.raft.state()
    }

    /// Notes what happened on this node.
    pub fn note(&self, kind: &str, text: impl Into<String>) {
        self.journal.note(self.me.0, kind, &self.config.name, text, "");
    }

    /// Who leads and votes, as this node knows.
    #[must_use]
    pub fn role(&self) -> Role {
        self.raft.role().borrow().clone()
    }

    /// When `node` was last heard by this node's elector.
    #[must_use]
    pub fn heard(&self, node: NodeId) -> Option<Heard> {
        lock(&self.heard).get(&node).copied()
    }

    /// Carries out planned restarts of this daemon.
    pub fn follow_restarts(self: &Arc<Self>, program: Program, main: mpsc::Sender<Replace>) {
        let restarts = Restarts { member: self.clone(), program, main, found: self.found };
        lock(&self.tasks).spawn(restarts.run());
    }

    /// How `node` is, from itself; `None` when it does not answer at once.
    pub async fn look(&self, node: NodeId) -> Option<v1::LookResponse> {
        if node == self.me { Some(self.look_here()) } else { self.proposer.peers.look(node).await }
    }

    /// How connections of `module` lie over this node's buckets; none before they were counted.
    #[must_use]
    pub fn spread(&self, module: &ModuleName) -> Option<node::Spread> {
        self.mirror.spreads.of(module)
    }

    /// How this node is.
    #[must_use]
    pub fn look_here(&self) -> v1::LookResponse {
        self.mirror.look()
    }

    /// Why `node` cannot serve; `None` when it can, or when this node's elector is not to hear it.
    #[must_use]
    pub fn absence(&self, node: NodeId) -> Option<Absence> {
        self.absence_in(&self.snapshot().state, node)
    }

    /// The same by the state that the caller has.
    #[must_use]
    pub fn absence_in(&self, state: &ClusterState, node: NodeId) -> Option<Absence> {
        if !state.electors.all().contains(&self.me) {
            return None;
        }
        match self.heard(node) {
            Some(heard) if BootTime(boot_now()).since(heard.at) <= SILENT => {
                (!heard.leased).then_some(Absence::Idle)
            }
            heard => Some(Absence::Silent(heard.map_or(BootTime(0), |h| h.at))),
        }
    }

    /// Hosts that are no members and have a virtual IP too, as this node hears.
    #[must_use]
    pub fn duplicates(&self) -> Vec<(VirtualIp, farm_host::Mac)> {
        self.duplicates.at(tokio::time::Instant::now())
    }

    /// Everything that is not green, as this node sees it.
    #[must_use]
    pub fn conditions(&self) -> Vec<farm_proto::v1::Condition> {
        condition::conditions(self, &self.dated)
    }

    /// Looks now and then, so that a condition is as old as it is, not as old as the first question about it.
    async fn keep_dates(self: Arc<Self>) {
        loop {
            drop(self.conditions());
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// Puts `command` into the log, here or through the leader; waits for a leader for a while. Then this node knows of
    /// it too, so that whoever asks it next finds what was answered; unless it has lost touch meanwhile, which takes
    /// nothing from the answer.
    ///
    /// # Errors
    /// [`ProposeError`] when there is none, or the command's fate is unknown.
    pub async fn propose(&self, command: Command) -> Result<Proposed, ProposeError> {
        let proposed = self.proposer.propose(command).await?;
        let mut state = self.raft.state();
        let known = state.wait_for(|s| s.last_applied.index >= proposed.index);
        if tokio::time::timeout(LEARN_MAX, known).await.is_err() {
            tracing::warn!(index = proposed.index, "carried out, and not known here yet");
        }
        Ok(proposed)
    }

    /// Founds the cluster: this node alone votes, then the first command.
    ///
    /// # Errors
    /// When the log does not take it.
    pub async fn found(&self, node: &Node, command: Command) -> Result<(), Problem> {
        let failed = |e: &dyn std::fmt::Display| {
            Problem::new(
                "init_failed",
                format!("the cluster could not be founded: {e}"),
                "farmctl cluster status",
            )
        };
        self.raft.initialize(Endpoint::of(node)).await.map_err(|e| failed(&e))?;
        let proposed = self.propose(command).await.map_err(|e| failed(&e))?;
        match proposed.refused {
            None => Ok(()),
            Some(refused) => Err(Problem::new("init_failed", refused.fact, refused.cure)),
        }
    }

    /// Tries until the log has it, or the cluster refuses it.
    pub async fn insist(&self, body: Body) {
        let command = Command::any(body);
        loop {
            match self.propose(command.clone()).await {
                Ok(Proposed { refused: None, .. }) => return,
                Ok(Proposed { refused: Some(why), .. }) => {
                    self.journal.note(self.me.0, &why.code, &self.config.name, why.fact, "");
                    return;
                }
                Err(error) => tracing::warn!(%error, "not said yet"),
            }
        }
    }

    /// Returns when the cluster has forgotten this node.
    pub async fn removed(&self) {
        let mut state = self.raft.state();
        // An id is the index of the entry that gave it: before that the state does not name the node either.
        let was_here = |s: &Snapshot| s.state.is_founded() && s.last_applied.index >= self.me.0;
        let gone = state.wait_for(|s| was_here(s) && !s.state.nodes.contains_key(&self.me)).await.is_ok();
        if !gone {
            std::future::pending::<()>().await;
        }
    }

    /// Ends everything: address, filter, lease, Raft.
    pub async fn stop(&self) {
        self.stop.send_replace(true);
        let follower = lock(&self.follower).take();
        if let Some(follower) = follower {
            // It ends after the host is as it was before; a panic there has been reported by it.
            let _ = follower.await;
        }
        self.lease.give(Order::End);
        lock(&self.tasks).abort_all();
        self.raft.shutdown().await;
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    // What these mutexes hold is whole at every step; a panic elsewhere does not spoil it.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn bind_peers(config: &Config) -> Result<Vec<TcpListener>, Problem> {
    let bind = |ip: &IpAddr| {
        let address = SocketAddr::new(*ip, config.ports.peer);
        TcpListener::bind(address).map_err(|e| refused(*ip, config.ports.peer, "tcp", &e))
    };
    config.addresses.values().map(bind).collect()
}

/// A daemon that looks alive but no longer decides, or no longer applies, is worse than none: the lease closes what
/// this process served.
async fn vital(what: &'static str, work: impl Future<Output = ()>) {
    if std::panic::AssertUnwindSafe(work).catch_unwind().await.is_err() {
        tracing::error!("the {what} panicked");
        std::process::abort();
    }
}

fn control_runtime() -> Result<Runtime, Problem> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(CONTROL_THREADS)
        .thread_name("farm-control")
        .on_thread_start(realtime::prefer)
        .enable_all()
        .build();
    runtime.map_err(|e| {
        Problem::new("no_runtime", format!("cannot start threads: {e}"), "systemctl status farmd")
    })
}

fn draw_incarnation() -> Result<Incarnation, Problem> {
    let mut incarnation = [0; 16];
    getrandom::fill(&mut incarnation).map_err(|e| Problem::new("no_randomness", e.to_string(), "dmesg"))?;
    Ok(Incarnation(incarnation))
}

fn start_lease(
    setup: &Setup,
    incarnation: Incarnation,
) -> Result<(LeaseHandle, mpsc::Receiver<Observation>), Problem> {
    let sockets = LeaseSockets::bind(&setup.config.addresses, setup.config.ports.lease)?;
    let identity =
        lease::Identity { cluster: setup.belonging.cluster, me: setup.belonging.node, incarnation };
    lease::spawn(identity, setup.secret.lease_key(), sockets).map_err(|e| {
        Problem::new(
            "no_lease_thread",
            format!("cannot start the lease thread: {e}"),
            "systemctl status farmd",
        )
    })
}

async fn start_raft(setup: &Setup, watch: Arc<Fencing>) -> Result<Handle, Problem> {
    let lease = watch.lease.clone();
    let options = raft::Options {
        me: setup.belonging.node,
        cluster: setup.belonging.cluster,
        level: LEVEL,
        proof: setup.secret.peer_proof(),
        generation: setup.generation,
        timing: setup.timing,
        store: Arc::new(setup.store.clone()) as Arc<dyn LogStore>,
        watch,
        fatal: Arc::new(|reason| {
            // The lease closes what this process served; a half-working Raft must not keep it open.
            tracing::error!("{reason}");
            std::process::abort();
        }),
    };
    let raft = Handle::start(options)
        .await
        .map_err(|e| Problem::new("raft_failed", e.to_string(), "farmctl node join PEER"))?;
    lease.give(Order::Generation(raft.gate().generation()));
    Ok(raft)
}
