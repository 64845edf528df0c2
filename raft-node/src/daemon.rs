//! The daemon: first without a cluster, then a member of one.

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use farm_core::apply::LEVEL;
use farm_core::command::{Body, Command};
use farm_core::id::{ClusterId, EntryId, Generation, NodeId};
use farm_core::model::{HashKey, Link, Membership, Node, Profile};
use farm_core::state::ClusterState;
use farm_host::{Netlink, links};
use farm_proto::v1;
use farm_store::{OpenError, OpenOptions, Store};
use tokio::sync::{Mutex, mpsc, watch};

use crate::config::{Config, LinkConfig};
use crate::http::Listening;
use crate::journal::Journal;
use crate::measure;
use crate::member::{Belonging, Member, Setup};
use crate::peer;
use crate::problem::Problem;
use crate::raft::{self, Gate};
use crate::rejoin::Rejoin;
use crate::replace::Program;
use crate::restart::Replace;
use crate::secret::Secret;
use crate::wire::Wire;

/// Raft id of the node that founds a cluster.
const FOUNDER: NodeId = NodeId(1);
/// Port of the peer API where `node join` names none.
pub const DEFAULT_PEER_PORT: u16 = 7601;

/// See the module.
pub struct Daemon {
    config: Config,
    journal: Arc<Journal>,
    member: watch::Sender<Option<Arc<Member>>>,
    /// How this process was started, and whom to tell when it is to become what lies there now.
    program: Program,
    replace: mpsc::Sender<Replace>,
    /// Where the HTTP server listens.
    http: Arc<Listening>,
    /// On its way back into a cluster that has gone on without it: what is not green about that.
    rejoining: watch::Sender<Option<v1::Condition>>,
    /// Held while the node founds, joins, resumes or leaves: one at a time.
    changing: Mutex<()>,
}

impl Daemon {
    /// A daemon without a cluster.
    ///
    /// # Errors
    /// `data_dir` when its directory cannot be made.
    pub fn new(config: Config, program: Program, replace: mpsc::Sender<Replace>) -> Result<Self, Problem> {
        std::fs::create_dir_all(&config.data_dir).map_err(|e| {
            let fact = format!("cannot make the data directory {}: {e}", config.data_dir.display());
            Problem::new("data_dir", fact, format!("mkdir -p {}", config.data_dir.display()))
        })?;
        let journal = Arc::new(Journal::open(&config.data_dir));
        let (member, changing) = (watch::channel(None).0, Mutex::new(()));
        let rejoining = watch::Sender::new(None);
        Ok(Self { config, journal, member, program, replace, http: Arc::default(), rejoining, changing })
    }

    /// What happened on this node.
    #[must_use]
    pub fn journal(&self) -> Arc<Journal> {
        self.journal.clone()
    }

    /// Where the HTTP server listens; it writes this, conditions tell it.
    #[must_use]
    pub fn http(&self) -> Arc<Listening> {
        self.http.clone()
    }

    /// The membership, as it comes and goes.
    #[must_use]
    pub fn member(&self) -> watch::Receiver<Option<Arc<Member>>> {
        self.member.subscribe()
    }

    /// The name of this node.
    #[must_use]
    pub fn name(&self) -> String {
        self.config.name.clone()
    }

    /// What is not green about a node that is no member, and is to become one again.
    #[must_use]
    pub fn rejoining(&self) -> Option<v1::Condition> {
        self.rejoining.borrow().clone()
    }

    pub(crate) fn on_its_way(&self, condition: Option<v1::Condition>) {
        self.rejoining.send_replace(condition);
    }

    /// Takes up the membership that the store remembers, if any, or goes on joining anew.
    ///
    /// # Errors
    /// A store that cannot be trusted, or a part that cannot start.
    pub async fn resume(self: &Arc<Self>) -> Result<(), Problem> {
        let _one = self.changing.lock().await;
        let store = if self.store_dir().exists() { Some(self.open_store()?) } else { None };
        let owner = store.as_ref().and_then(|store| raft::owner(store));
        let (Some(store), Some((node, cluster))) = (store, owner) else {
            if let Some(rejoin) = Rejoin::load(&self.config.data_dir)? {
                tokio::spawn(self.clone().join_anew(rejoin));
            }
            return Ok(());
        };
        let here = self.describe().await?;
        let secret = Secret::load(&self.config.secret_file)?;
        let belonging = Belonging { cluster, node };
        let member = self.start(store, belonging, secret, Generation::default(), None).await?;
        member.come_back(here);
        Ok(())
    }

    /// Founds a cluster with this node as its only member.
    ///
    /// # Errors
    /// `already_member`, what the cluster would refuse, or what kept it from starting. Nothing is left behind then.
    pub async fn found(self: &Arc<Self>, request: v1::InitRequest) -> Result<v1::InitResponse, Problem> {
        let _one = self.changing.lock().await;
        self.refuse_member()?;
        let (profile, reasons) = self.choose_profile(request.profile).await?;
        let node = Node { id: FOUNDER, ..self.describe().await? };
        let cluster = ClusterId(random()?);
        let name = if request.name.is_empty() { "farm".to_string() } else { request.name };
        let (hash_key, nonce) = (HashKey(random()?), u64::from_le_bytes(random()?));
        let body = Body::Found { cluster, name, hash_key, profile, node: node.clone(), nonce };
        let command = Command::any(body);
        rehearse(&ClusterState::default(), &command)?;
        let secret = Secret::load_or_create(&self.config.secret_file)?;
        let store = self.open_store()?;
        let belonging = Belonging { cluster, node: FOUNDER };
        let timing = Some(raft::Timing::of(profile));
        let member = self.start(store, belonging, secret, Generation::default(), timing).await?;
        member.found(&node, command).await?;
        let cluster = cluster.0.to_vec().into();
        Ok(v1::InitResponse { cluster, node: FOUNDER.0, profile: profile.to_wire(), reasons })
    }

    /// Joins the cluster of which a member runs at `request.peer`.
    ///
    /// # Errors
    /// `already_member`, `peer_unreachable`, `peer_refused`, or the cluster's refusal.
    pub async fn join(
        self: &Arc<Self>,
        request: v1::JoinClusterRequest,
    ) -> Result<v1::JoinClusterResponse, Problem> {
        let _one = self.changing.lock().await;
        self.refuse_member()?;
        let peer = parse_peer(&request.peer)?;
        let secret = Secret::load(&self.config.secret_file)?;
        // Before the cluster counts this node: what would keep it from starting.
        let store = self.open_store()?;
        if raft::owner(&store).is_some() {
            let fact = format!("{} holds the log of a membership that is over", self.store_dir().display());
            return Err(Problem::new("old_log", fact, set_aside(&self.store_dir())));
        }
        let gate = Gate::outsider(LEVEL, secret.peer_proof());
        let answer = peer::ask_to_join(gate, peer, &self.describe().await?).await?;
        if let Some(refused) = answer.refused {
            return Err(Problem::new(refused.code, refused.fact, refused.cure));
        }
        let malformed = |what: &dyn std::fmt::Display| {
            Problem::new(
                "bad_answer",
                format!("{peer} answered what this version cannot read: {what}"),
                "farmctl version",
            )
        };
        let cluster: [u8; 16] =
            answer.cluster.as_ref().try_into().map_err(|_| malformed(&"no cluster id"))?;
        let belonging = Belonging { cluster: ClusterId(cluster), node: NodeId(answer.node) };
        let generation =
            answer.generation.map(Generation::from_wire).transpose().map_err(|e| malformed(&e))?;
        let profile = Profile::from_wire(answer.profile).map_err(|e| malformed(&e))?;
        let timing = Some(raft::Timing::of(profile));
        self.start(store, belonging, secret, generation.unwrap_or_default(), timing).await?;
        self.on_its_way(None);
        Rejoin::forget(&self.config.data_dir)?;
        Ok(v1::JoinClusterResponse { node: answer.node, cluster: answer.cluster, name: answer.cluster_name })
    }

    /// Hands the buckets over and stops.
    pub async fn stop(&self) {
        let _one = self.changing.lock().await;
        let member = self.member.send_replace(None);
        if let Some(member) = member {
            member.hand_over().await;
            member.stop().await;
        }
    }

    async fn start(
        self: &Arc<Self>,
        store: Store,
        belonging: Belonging,
        secret: Secret,
        generation: Generation,
        timing: Option<raft::Timing>,
    ) -> Result<Arc<Member>, Problem> {
        let (config, journal) = (self.config.clone(), self.journal.clone());
        let program = self.program.path().to_owned();
        let http = self.http.clone();
        let setup = Setup { config, store, belonging, generation, timing, secret, journal, program, http };
        let member = Member::start(setup).await?;
        member.follow_restarts(self.program.clone(), self.replace.clone());
        self.member.send_replace(Some(member.clone()));
        tokio::spawn(self.clone().follow_membership(member.clone()));
        Ok(member)
    }

    /// A node that left is no member any more: its store is set aside, and it may join again under a new id. One whose
    /// membership was ended by others does so by itself; its applications go on meanwhile, and are found again.
    async fn follow_membership(self: Arc<Self>, member: Arc<Member>) {
        tokio::select! {
            () = member.removed() => {
                // Nobody else would stop them.
                member.modules.rested().await;
                self.give_up(member, None).await;
            }
            why = member.overruled() => {
                let rejoin = Rejoin::of(&member, why);
                if self.give_up(member, Some(&rejoin)).await {
                    self.join_anew(rejoin).await;
                }
            }
        }
    }

    /// Ends a membership and sets its log aside; `false` where it was not this node's any more, or cannot be.
    async fn give_up(&self, member: Arc<Member>, rejoin: Option<&Rejoin>) -> bool {
        let _one = self.changing.lock().await;
        let is_current = self.member.borrow().as_ref().is_some_and(|m| Arc::ptr_eq(m, &member));
        if !is_current {
            return false;
        }
        // First: whoever restarts the daemon meanwhile finds what is to be done.
        if let Some(Err(problem)) = rejoin.map(|rejoin| rejoin.save(&self.config.data_dir)) {
            self.journal.note(0, &problem.code, &self.config.name, problem.fact, "");
            return false;
        }
        self.on_its_way(rejoin.map(|rejoin| rejoin.condition(&self.name(), "it is being stopped")));
        self.member.send_replace(None);
        member.stop().await;
        drop(member);
        let (kind, why) = rejoin.map_or(("left", "this node left"), |r| ("rejoining", &r.why));
        match farm_store::quarantine(&self.store_dir()) {
            Ok(aside) => {
                let text = format!("{why}; its log is kept in {}", aside.display());
                self.journal.note(0, kind, &self.config.name, text, "");
                true
            }
            Err(error) => {
                tracing::error!(%error, "cannot set the store aside");
                false
            }
        }
    }

    fn refuse_member(&self) -> Result<(), Problem> {
        let Some(member) = self.member.borrow().clone() else { return Ok(()) };
        let snapshot = member.snapshot();
        let fact = format!("{} is already a member of cluster {}", self.config.name, snapshot.state.name);
        if snapshot.state.nodes.len() > 1 {
            return Err(Problem::new("already_member", fact, "farmctl node leave"));
        }
        let fact =
            format!("{fact}, alone; to give it up stop farmd, set its log aside and start farmd again");
        Err(Problem::new("already_member", fact, set_aside(&self.store_dir())))
    }

    fn store_dir(&self) -> PathBuf {
        self.config.store_dir()
    }

    fn open_store(&self) -> Result<Store, Problem> {
        let fatal: farm_store::FatalHook = Arc::new(|error| {
            // A store that failed once is not trusted again: the lease closes what this process served.
            tracing::error!(%error, "the store failed");
            std::process::abort();
        });
        let writer_started = Arc::new(crate::realtime::prefer);
        let options = OpenOptions { writer_started, ..OpenOptions::new(fatal) };
        let opened = Store::open(&self.store_dir(), &options);
        opened
            .map(|(store, _)| store)
            .map_err(|e| Problem::new(e.code(), e.to_string(), store_cure(&e, &self.store_dir())))
    }

    async fn choose_profile(&self, asked: i32) -> Result<(Profile, Vec<String>), Problem> {
        if asked != v1::Profile::Unspecified as i32 {
            let profile = Profile::from_wire(asked);
            return profile.map(|p| (p, vec!["as asked".into()])).map_err(|e| {
                Problem::new("bad_request", e.to_string(), "farmctl cluster init --profile fast")
            });
        }
        let dir = self.config.data_dir.clone();
        let measured = tokio::task::spawn_blocking(move || measure::measure(&dir)).await;
        match measured {
            Ok(Ok(measured)) => Ok(measured.propose()),
            Ok(Err(e)) => Err(Problem::new(
                "data_dir",
                format!("cannot measure the disk: {e}"),
                format!("df {}", self.config.data_dir.display()),
            )),
            Err(e) => {
                Err(Problem::new("measure_failed", e.to_string(), "farmctl cluster init --profile standard"))
            }
        }
    }

    /// This node as the cluster will know it.
    async fn describe(&self) -> Result<Node, Problem> {
        let config = &self.config;
        Ok(Node {
            id: NodeId(0),
            name: config.name.clone(),
            role: config.role,
            membership: Membership::Member,
            addresses: config.addresses.clone(),
            links: self.links().await?,
            peer_port: config.ports.peer,
            lease_port: config.ports.lease,
            api_port: config.ports.api,
            room: String::new(),
        })
    }

    async fn links(&self) -> Result<Vec<Link>, Problem> {
        let unknown = |name: &str, e: &dyn std::fmt::Display| {
            let fact = format!("service interface {name}: {e}");
            Problem::new("unknown_interface", fact, "ip -brief link")
        };
        let netlink = Netlink::open().map_err(|e| unknown("", &e))?;
        let mut found = Vec::new();
        for LinkConfig { device, vlan, .. } in &self.config.links {
            let link = links::by_name(&netlink, device).await.map_err(|e| unknown(device, &e))?;
            let addresses = link.addresses.iter().map(|a| (a.addr(), a.prefix_len())).collect();
            found.push(Link { name: link.name, mac: link.mac, addresses, vlan: *vlan });
        }
        Ok(found)
    }
}

/// The command that takes a log out of use without losing it.
#[must_use]
pub fn set_aside(store: &Path) -> String {
    format!("mv {0} {0}.left", store.display())
}

/// Refuses what the cluster in `state` would refuse, before anything is touched for it.
///
/// # Errors
/// The refusal.
pub fn rehearse(state: &ClusterState, command: &Command) -> Result<(), Problem> {
    let next = EntryId { index: u64::MAX, ..EntryId::default() };
    let outcome = state.clone().apply(command, next);
    let outcome = outcome.map_err(|e| Problem::new("old_version", e.to_string(), "farmd --version"))?;
    outcome.refusal().map_or(Ok(()), |r| Err(Problem::new(r.code, r.fact.clone(), r.cure.clone())))
}

/// What to do about a store that does not open. A bad one is moved aside by hand: nothing is ever wiped.
pub(crate) fn store_cure(error: &OpenError, dir: &Path) -> String {
    let dir = dir.display();
    match error {
        OpenError::Damaged { .. } | OpenError::LostWrites { .. } => format!("mv {dir} {dir}.bad"),
        // Often only a disk that is slow for now; sound votes are not to be thrown away.
        OpenError::Hung { .. } => "systemctl restart farmd".into(),
        OpenError::Locked { .. } => "systemctl stop farmd".into(),
        OpenError::Filesystem { .. } | OpenError::DiskFull { .. } => format!("df {dir}"),
        OpenError::Io { .. } => "dmesg".into(),
        OpenError::NewerFormat { .. } => "farmd --version".into(),
    }
}

fn parse_peer(text: &str) -> Result<SocketAddr, Problem> {
    let with_port = text.parse::<SocketAddr>();
    let alone = || text.parse::<IpAddr>().map(|ip| SocketAddr::new(ip, DEFAULT_PEER_PORT));
    with_port.or_else(|_| alone()).map_err(|_| {
        let fact = format!("{text} is not an address of a member (IP or IP:PORT)");
        Problem::new("bad_peer", fact, "farmctl node join 192.0.2.11:7601")
    })
}

pub(crate) fn random<const N: usize>() -> Result<[u8; N], Problem> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(|e| {
        Problem::new("no_randomness", format!("the kernel gives no randomness: {e}"), "dmesg")
    })?;
    Ok(bytes)
}
