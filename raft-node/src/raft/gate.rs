//! Who may talk to whom: cluster, generation and knowledge of the secret, checked on every message and every answer.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use farm_core::id::{ClusterId, FeatureLevel, Generation, NodeId};
use tokio::sync::watch;
use tonic::metadata::{MetadataMap, MetadataValue};
use tonic::service::Interceptor;
use tonic::{Code, Request, Status};

use super::runs::{Run, Runs};

const CLUSTER: &str = "farm-cluster";
const GENERATION: &str = "farm-generation";
const NODE: &str = "farm-node";
/// Which run of its store it is in.
const RUN: &str = "farm-run";
/// For whom a message is.
const TO: &str = "farm-to";
/// The newest run of that node that the sender has seen.
const TO_RUN: &str = "farm-to-run";
const LEVEL: &str = "farm-level";
const PROOF: &str = "farm-proof";
/// Stable code of a refusal, beside its text.
const REFUSAL: &str = "farm-refusal";

/// Why a message or answer is not accepted.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Denied {
    /// The sender does not know the cluster's secret.
    #[error(
        "the peer's proof is wrong: its secret file differs from this node's; copy the file from a member"
    )]
    WrongProof,
    /// The sender belongs to another cluster.
    #[error(
        "the peer belongs to cluster {theirs}, this node to {ours}; remove its address here, or let it join anew"
    )]
    WrongCluster {
        /// Its cluster.
        theirs: String,
        /// Ours.
        ours: String,
    },
    /// The message is for another node, or the answer from another one than was asked: a machine left, and joined anew
    /// under another id, or has taken over another one's address.
    #[error(
        "node {ours} was meant to be node {meant}: the address has changed hands, or its node has joined anew"
    )]
    WrongNode {
        /// Whom the message is for.
        meant: NodeId,
        /// Who got it.
        ours: NodeId,
    },
    /// Votes and entries may be missing in the store of that node: another copy of it has run since, or runs.
    #[error(
        "another copy of the store of node {node} has run since, or runs: this one may have forgotten what it agreed to; let node {node} leave, set its log aside there, and let it join anew"
    )]
    Copied {
        /// The node.
        node: NodeId,
    },
    /// A survivor has taken over since the sender was cut off.
    #[error("the peer is of generation {theirs}, this node of {ours}: it must join anew with a fresh state")]
    LowerGeneration {
        /// Its generation.
        theirs: u64,
        /// Ours.
        ours: u64,
    },
    /// A survivor has taken over since this node was cut off.
    #[error(
        "the peer is of generation {theirs}, this node of {ours}: this node must join anew with a fresh state"
    )]
    HigherGeneration {
        /// Its generation.
        theirs: u64,
        /// Ours.
        ours: u64,
    },
    /// Two survivors took over at the same time: neither may serve.
    #[error(
        "two nodes have taken over as generation {number}: both close; choose whose state holds and let the other join anew"
    )]
    Conflict {
        /// The generation.
        number: u64,
    },
    /// A metadata field is missing or not readable.
    #[error("{field} is missing or not readable; upgrade the peer")]
    Unreadable {
        /// The field.
        field: &'static str,
    },
}

impl Denied {
    /// Stable name, for logs and tests.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::WrongProof => "wrong_proof",
            Self::WrongCluster { .. } => "wrong_cluster",
            Self::WrongNode { .. } => "wrong_node",
            Self::Copied { .. } => "store_copied",
            Self::LowerGeneration { .. } => "generation_lower",
            Self::HigherGeneration { .. } => "generation_higher",
            Self::Conflict { .. } => "generation_conflict",
            Self::Unreadable { .. } => "metadata_unreadable",
        }
    }

    fn status(&self) -> Status {
        let code = match self {
            Self::WrongProof => Code::Unauthenticated,
            Self::WrongCluster { .. }
            | Self::WrongNode { .. }
            | Self::Copied { .. }
            | Self::LowerGeneration { .. }
            | Self::HigherGeneration { .. }
            | Self::Conflict { .. } => Code::FailedPrecondition,
            Self::Unreadable { .. } => Code::InvalidArgument,
        };
        let mut metadata = MetadataMap::new();
        metadata.insert(REFUSAL, MetadataValue::from_static(self.code()));
        Status::with_metadata(code, self.to_string(), metadata)
    }
}

/// Stable code of a refusal by the peer's gate, if `status` is one.
#[must_use]
pub fn refusal(status: &Status) -> Option<&str> {
    status.metadata().get(REFUSAL)?.to_str().ok()
}

/// Who sent an admitted message. `cluster` is set unless the sender is about to join.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Caller {
    /// The sender; `None` before it is a member.
    pub node: Option<NodeId>,
    /// Newest feature level it knows.
    pub level: FeatureLevel,
    /// Whether it named this cluster (and generation).
    pub member: bool,
}

/// What a node says of itself, and what it asks of others. Clones share the generation.
#[derive(Clone)]
pub struct Gate {
    inner: Arc<Inner>,
}

struct Inner {
    me: Option<NodeId>,
    cluster: Option<ClusterId>,
    level: FeatureLevel,
    proof: String,
    generation: watch::Sender<Generation>,
    runs: Runs,
    /// Whose log has gone back in time under this leader.
    reverted: watch::Sender<BTreeSet<NodeId>>,
    trouble: watch::Sender<Option<Denied>>,
    /// Set while this node looks for a way to go on without its peer: no answer of Raft's leaves.
    hushed: AtomicBool,
    refused: AtomicU64,
}

impl Gate {
    /// For a member. `proof` is derived from the cluster secret; printable ASCII.
    #[must_use]
    pub fn new(
        me: NodeId,
        cluster: ClusterId,
        level: FeatureLevel,
        proof: String,
        generation: Generation,
        runs: Runs,
    ) -> Self {
        Self::with(Some(me), Some(cluster), level, proof, generation, runs)
    }

    /// For a node that asks to join: it names no cluster, and may call `Join` only.
    #[must_use]
    pub fn outsider(level: FeatureLevel, proof: String) -> Self {
        Self::with(None, None, level, proof, Generation::default(), Runs::default())
    }

    fn with(
        me: Option<NodeId>,
        cluster: Option<ClusterId>,
        level: FeatureLevel,
        proof: String,
        generation: Generation,
        runs: Runs,
    ) -> Self {
        let (generation, _) = watch::channel(generation);
        let (trouble, _) = watch::channel(None);
        Self {
            inner: Arc::new(Inner {
                me,
                cluster,
                level,
                proof,
                generation,
                runs,
                reverted: watch::Sender::new(BTreeSet::new()),
                trouble,
                hushed: AtomicBool::new(false),
                refused: AtomicU64::new(0),
            }),
        }
    }

    /// The cluster; `None` for a node that asks to join.
    #[must_use]
    pub fn cluster(&self) -> Option<ClusterId> {
        self.inner.cluster
    }

    /// The generation that is spoken for.
    #[must_use]
    pub fn generation(&self) -> Generation {
        *self.inner.generation.borrow()
    }

    /// Speaks for `generation` from now on, if it is higher. It must be durable already.
    pub(crate) fn raise(&self, generation: Generation) {
        self.inner.generation.send_if_modified(|now| {
            let higher = generation.number > now.number;
            if higher {
                *now = generation;
            }
            higher
        });
    }

    /// From now on (`true`) no answer of Raft's leaves this node. What a peer may count as kept here was in the log before.
    pub fn hush(&self, hushed: bool) {
        self.inner.hushed.store(hushed, Ordering::SeqCst);
    }

    pub(crate) fn is_hushed(&self) -> bool {
        self.inner.hushed.load(Ordering::SeqCst)
    }

    /// The log of `node` has gone back in time: what it had acknowledged is not there any more.
    pub(crate) fn tell_reverted(&self, node: NodeId) {
        let new = self.inner.reverted.send_if_modified(|all| all.insert(node));
        if new {
            tracing::error!(%node, "its log went back in time: it is not sent anything any more");
        }
    }

    /// Whose log has gone back in time, as far as this node has seen as leader.
    #[must_use]
    pub fn reverted(&self) -> BTreeSet<NodeId> {
        self.inner.reverted.borrow().clone()
    }

    /// What a peer showed or said that keeps this node from taking part (a higher or conflicting generation, a copied
    /// store): it must close.
    #[must_use]
    pub fn trouble(&self) -> watch::Receiver<Option<Denied>> {
        self.inner.trouble.subscribe()
    }

    /// Writes who we are into the metadata of a message or answer.
    pub(crate) fn stamp(&self, metadata: &mut MetadataMap) {
        let inner = &self.inner;
        let mut put = |key: &'static str, text: String| {
            metadata.insert(key, text.parse().expect("hex, digits and the proof are printable ASCII"));
        };
        if let Some(cluster) = inner.cluster {
            put(CLUSTER, hex(&cluster));
            put(GENERATION, generation_text(self.generation()));
        }
        if let Some(me) = inner.me {
            put(NODE, me.to_string());
        }
        if let Some(run) = inner.runs.own() {
            put(RUN, run.to_string());
        }
        put(LEVEL, inner.level.to_string());
        put(PROOF, inner.proof.clone());
    }

    /// Judges the metadata of a message or answer.
    ///
    /// # Errors
    /// [`Denied`]; a higher or conflicting generation is also shown by [`Gate::trouble`].
    pub(crate) fn check(&self, metadata: &MetadataMap) -> Result<Caller, Denied> {
        let verdict = self.judge(metadata);
        if let Err(denied @ (Denied::HigherGeneration { .. } | Denied::Conflict { .. })) = &verdict {
            self.inner.trouble.send_replace(Some(denied.clone()));
        }
        verdict
    }

    /// Judges the metadata of an answer to what was meant for `to`.
    ///
    /// # Errors
    /// As [`Gate::check`], or [`Denied::WrongNode`].
    pub(crate) fn check_answer(&self, to: Option<NodeId>, metadata: &MetadataMap) -> Result<(), Denied> {
        same_node(to, self.check(metadata)?.node)
    }

    /// The answer to who is refused. Who knows the secret is also told which generation it met.
    fn refuse(&self, denied: &Denied) -> Status {
        let mut status = denied.status();
        match denied {
            Denied::WrongProof => {}
            Denied::WrongCluster { .. }
            | Denied::WrongNode { .. }
            | Denied::Copied { .. }
            | Denied::LowerGeneration { .. }
            | Denied::HigherGeneration { .. }
            | Denied::Conflict { .. }
            | Denied::Unreadable { .. } => self.stamp(status.metadata_mut()),
        }
        status
    }

    /// A refused peer comes back every 50 ms: the 1st, 2nd, 4th, 8th ... refusal is logged.
    fn log_refused(&self, denied: &Denied, from: Option<SocketAddr>) {
        let count = self.inner.refused.fetch_add(1, Ordering::Relaxed) + 1;
        if count.is_power_of_two() {
            tracing::warn!(code = denied.code(), ?from, count, "peer refused: {denied}");
        }
    }

    fn judge(&self, metadata: &MetadataMap) -> Result<Caller, Denied> {
        let proof = text(metadata, PROOF)?.ok_or(Denied::WrongProof)?;
        // Compared as hashes: in a time that does not depend on where they differ.
        if blake3::hash(proof.as_bytes()) != blake3::hash(self.inner.proof.as_bytes()) {
            return Err(Denied::WrongProof);
        }
        let level = number(metadata, LEVEL)?.and_then(|n| u32::try_from(n).ok());
        let node = number(metadata, NODE)?.map(NodeId);
        let member = self.judge_cluster(metadata)?;
        if let Some(node) = node.filter(|_| member) {
            self.judge_run(node, metadata)?;
        }
        Ok(Caller { node, level: FeatureLevel(level.ok_or(Denied::Unreadable { field: LEVEL })?), member })
    }

    /// Older builds do not say it.
    fn judge_run(&self, node: NodeId, metadata: &MetadataMap) -> Result<(), Denied> {
        let Some(run) = text(metadata, RUN)? else { return Ok(()) };
        let run = run.parse().map_err(|()| Denied::Unreadable { field: RUN })?;
        if self.inner.runs.admits(self.inner.me, node, run) { Ok(()) } else { Err(Denied::Copied { node }) }
    }

    /// Who sends has seen another copy of this node's store, and nothing of what this one agreed to would count.
    fn is_meant(&self, metadata: &MetadataMap) -> Result<(), Denied> {
        let Some(run) = text(metadata, TO_RUN)? else { return Ok(()) };
        let run: Run = run.parse().map_err(|()| Denied::Unreadable { field: TO_RUN })?;
        match (self.inner.me, self.inner.runs.own()) {
            (Some(node), Some(own)) if run != own && run.number >= own.number => {
                self.inner.trouble.send_replace(Some(Denied::Copied { node }));
                Err(Denied::Copied { node })
            }
            _ => Ok(()),
        }
    }

    /// A peer that belongs to this cluster has refused this node, with that code.
    pub(crate) fn refused(&self, code: &str, metadata: &MetadataMap) {
        // What matters of it, a higher or conflicting generation, is kept.
        let known = self.check(metadata).is_ok_and(|peer| peer.member);
        let Some(node) = self.inner.me.filter(|_| known) else { return };
        let copied = Denied::Copied { node };
        if code == copied.code() {
            self.inner.trouble.send_replace(Some(copied));
        }
    }

    fn judge_cluster(&self, metadata: &MetadataMap) -> Result<bool, Denied> {
        let (Some(ours), Some(theirs)) = (self.inner.cluster.as_ref().map(hex), text(metadata, CLUSTER)?)
        else {
            // One of the two is about to join.
            return Ok(false);
        };
        if ours != theirs {
            return Err(Denied::WrongCluster { theirs: theirs.to_owned(), ours });
        }
        let theirs = text(metadata, GENERATION)?.and_then(parse_generation);
        same_generation(self.generation(), theirs.ok_or(Denied::Unreadable { field: GENERATION })?)?;
        Ok(true)
    }
}

fn same_generation(ours: Generation, theirs: Generation) -> Result<(), Denied> {
    match theirs.number.cmp(&ours.number) {
        std::cmp::Ordering::Less => Err(Denied::LowerGeneration { theirs: theirs.number, ours: ours.number }),
        std::cmp::Ordering::Greater => {
            Err(Denied::HigherGeneration { theirs: theirs.number, ours: ours.number })
        }
        std::cmp::Ordering::Equal if theirs == ours => Ok(()),
        std::cmp::Ordering::Equal => Err(Denied::Conflict { number: ours.number }),
    }
}

impl Interceptor for Gate {
    /// On a server: admits or refuses. [`Caller`] is added to the extensions of what is admitted.
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        let admitted = self.check(request.metadata()).and_then(|caller| {
            let meant = number(request.metadata(), TO)?.map(NodeId);
            same_node(meant, self.inner.me)?;
            self.is_meant(request.metadata()).map(|()| caller)
        });
        let caller = admitted.map_err(|denied| {
            self.log_refused(&denied, request.remote_addr());
            self.refuse(&denied)
        })?;
        request.extensions_mut().insert(caller);
        Ok(request)
    }
}

/// Who does not say whom it means, means whoever is there.
fn same_node(meant: Option<NodeId>, ours: Option<NodeId>) -> Result<(), Denied> {
    match (meant, ours) {
        (Some(meant), Some(ours)) if meant != ours => Err(Denied::WrongNode { meant, ours }),
        _ => Ok(()),
    }
}

/// On a client: says who we are, and whom we mean.
#[derive(Clone)]
pub struct Stamp {
    pub(crate) gate: Gate,
    pub(crate) to: Option<NodeId>,
}

impl Interceptor for Stamp {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        self.gate.stamp(request.metadata_mut());
        if let Some(to) = self.to {
            request.metadata_mut().insert(TO, MetadataValue::from(to.0));
            if let Some(run) = self.gate.inner.runs.newest(to) {
                let text = run.to_string().parse().expect("digits are printable ASCII");
                request.metadata_mut().insert(TO_RUN, text);
            }
        }
        Ok(request)
    }
}

fn text<'a>(metadata: &'a MetadataMap, key: &'static str) -> Result<Option<&'a str>, Denied> {
    metadata.get(key).map(|v| v.to_str().map_err(|_| Denied::Unreadable { field: key })).transpose()
}

fn number(metadata: &MetadataMap, key: &'static str) -> Result<Option<u64>, Denied> {
    text(metadata, key)?.map(|t| t.parse().map_err(|_| Denied::Unreadable { field: key })).transpose()
}

fn hex(cluster: &ClusterId) -> String {
    cluster.0.iter().map(|b| format!("{b:02x}")).collect()
}

fn generation_text(g: Generation) -> String {
    format!("{}.{}.{:x}", g.number, g.survivor.0, g.nonce)
}

fn parse_generation(text: &str) -> Option<Generation> {
    let mut parts = text.splitn(3, '.');
    let number = parts.next()?.parse().ok()?;
    let survivor = NodeId(parts.next()?.parse().ok()?);
    let nonce = u64::from_str_radix(parts.next()?, 16).ok()?;
    Some(Generation { number, survivor, nonce })
}
