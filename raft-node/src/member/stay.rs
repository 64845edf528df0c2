//! How a member comes back, and how it goes for a while.

use std::sync::Arc;
use std::time::Duration;

use farm_core::command::Body;
use farm_core::model::{Membership, Node, Role};
use farm_core::time::BootTime;
use farm_dataplane::clock::boot_now;

use super::{CLOCK_EVERY, HAND_OVER_MAX, HEIR_MAX, Member, lock};
use crate::journal::now_ms;

/// A role with its article.
const fn words(role: Role) -> &'static str {
    match role {
        Role::Server => "a server",
        Role::Witness => "a witness",
    }
}

impl Member {
    /// After a restart: tells the cluster where this node is now, and that it is back.
    pub fn come_back(self: &Arc<Self>, now: Node) {
        let member = self.clone();
        let task = lock(&self.tasks).spawn(async move {
            if member.say_where(now).await.is_some() {
                member.stay_back().await;
            }
        });
        *lock(&self.coming_back) = Some(task);
    }

    /// `None` when Raft has ended.
    async fn say_where(&self, now: Node) -> Option<()> {
        let known = self.own_entry(|_| true).await?;
        if known.name != now.name {
            let text = format!(
                "farmd.toml calls this node {}, the cluster knows it as {}: the cluster's name holds until it leaves",
                now.name, known.name
            );
            self.journal.note(self.me.0, "name_changed", &known.name, text, "");
        }
        if known.role != now.role {
            let (told, known) = (words(now.role), words(known.role));
            let text = format!(
                "this daemon was started as {told}, the cluster knows it as {known}, which holds until it leaves"
            );
            self.journal.note(self.me.0, "role_changed", &now.name, text, "");
        }
        let links = if known.role == Role::Witness { Vec::new() } else { now.links };
        let current = Node {
            id: self.me,
            membership: known.membership,
            role: known.role,
            name: known.name.clone(),
            room: known.room.clone(),
            links,
            ..now
        };
        if current != known {
            self.insist(Body::NodeUpdate(current)).await;
        }
        Some(())
    }

    /// Says that this node is back whenever the cluster thinks it is away: what it said before it stopped may reach
    /// the log late.
    async fn stay_back(&self) {
        while self.own_entry(|me| me.membership == Membership::Away).await.is_some() {
            self.insist(Body::NodeBack(self.me)).await;
        }
    }

    /// Ends the maintenance of this node when its end has come, also when that was while the daemon was down.
    pub(super) async fn end_maintenance(self: Arc<Self>) {
        let mut state = self.raft.state();
        loop {
            let until = state.borrow_and_update().state.maintenance.get(&self.me).and_then(|m| m.until);
            let left = until.map(|until| Duration::from_millis(until.0.saturating_sub(now_ms())));
            match (until, left) {
                (Some(due), Some(Duration::ZERO)) => {
                    self.insist(Body::MaintenanceOff { node: self.me, due: Some(due) }).await;
                }
                // The wall clock may be set meanwhile: it is looked at again.
                (_, left) => {
                    let wait = left.map_or(Duration::MAX, |left| left.min(CLOCK_EVERY));
                    if tokio::time::timeout(wait, state.changed()).await.is_ok_and(|seen| seen.is_err()) {
                        return;
                    }
                }
            }
        }
    }

    /// This node as the state knows it, once `holds` is true of it.
    async fn own_entry(&self, holds: impl Fn(&Node) -> bool) -> Option<Node> {
        let mut state = self.raft.state();
        let known = state.wait_for(|s| s.state.nodes.get(&self.me).is_some_and(&holds)).await;
        known.ok().and_then(|s| s.state.nodes.get(&self.me).cloned())
    }

    /// Before a planned stop: the buckets go elsewhere, the flows end or time out, the leadership is handed on.
    pub async fn hand_over(&self) {
        if let Some(coming_back) = lock(&self.coming_back).take() {
            coming_back.abort();
        }
        let snapshot = self.snapshot();
        let alone = snapshot.state.nodes.len() <= 1;
        // It serves nothing, and where no majority grants leases nobody can take anything from it.
        let closed = BootTime(self.lease.deadline()) <= BootTime(boot_now());
        if alone || closed || self.trouble().is_some() || !snapshot.state.nodes.contains_key(&self.me) {
            return;
        }
        if tokio::time::timeout(HAND_OVER_MAX, self.give_all_away()).await.is_err() {
            self.journal.note(
                self.me.0,
                "hand_over_incomplete",
                &self.config.name,
                "stopping with buckets or flows left",
                "",
            );
        }
    }

    async fn give_all_away(&self) {
        self.insist(Body::NodeAway(self.me)).await;
        let mut state = self.raft.state();
        // An error means Raft has ended: then there is nothing to wait for.
        let _ = state.wait_for(|s| !s.state.is_party(self.me)).await;
        // The controller hands the leadership on once nothing depends on this node but its vote.
        self.let_another_lead().await;
    }

    /// Waits until somebody else leads; not for long, for there may be nobody else.
    pub async fn let_another_lead(&self) {
        let mut role = self.raft.role();
        let led = role.wait_for(|r| r.leader.is_some_and(|leader| leader != self.me));
        if tokio::time::timeout(HEIR_MAX, led).await.is_err() {
            tracing::warn!("leadership not handed on");
        }
    }
}
