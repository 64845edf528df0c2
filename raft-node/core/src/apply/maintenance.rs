//! Servers that are kept free of clients while somebody works on them.

use super::{Done, Refusal, ensure, happened};
use crate::event::Kind;
use crate::id::NodeId;
use crate::limits;
use crate::model::{Maintenance, Role};
use crate::state::ClusterState;
use crate::time::UnixTime;

impl ClusterState {
    pub(super) fn maintenance_on(&mut self, id: NodeId, maintenance: &Maintenance) -> Done {
        let node = self.member(id)?;
        let name = node.name.clone();
        ensure(node.role == Role::Server, || {
            let fact = format!("{name} is a witness: it serves nothing, stop it when you like");
            Refusal::new("witness", fact, "farmctl node list")
        })?;
        check_reason(&maintenance.reason)?;
        ensure(maintenance.until.is_none_or(|until| until > maintenance.since), || {
            let fact = "the end of the maintenance is not in the future";
            Refusal::new("bad_until", fact, format!("farmctl node maintenance on {name} --until 30m"))
        })?;
        let others = self.nodes.values().filter(|n| n.id != id && n.role == Role::Server);
        ensure(others.into_iter().any(|n| self.takes_part(n)), || {
            let fact =
                format!("{name} is the last server that takes part: nobody could take its clients over");
            Refusal::new("last_server", fact, "farmctl node list")
        })?;
        self.maintenance.insert(id, maintenance.clone());
        let Maintenance { until, reason, .. } = maintenance.clone();
        happened(Kind::MaintenanceOn { name, until, reason })
    }

    pub(super) fn maintenance_off(&mut self, id: NodeId, due: Option<UnixTime>) -> Done {
        let name = self.member(id)?.name.clone();
        let Some(maintenance) = self.maintenance.get(&id) else {
            let fact = format!("{name} is not in maintenance");
            return Err(Refusal::new("no_maintenance", fact, "farmctl node list"));
        };
        ensure(due.is_none() || maintenance.until == due, || {
            let fact = format!("the maintenance of {name} has another end by now");
            Refusal::new("no_maintenance", fact, "farmctl node list")
        })?;
        self.maintenance.remove(&id);
        happened(Kind::MaintenanceOff { name, due: due.is_some() })
    }
}

fn check_reason(reason: &str) -> Result<(), Refusal> {
    let good = reason.len() <= limits::REASON && !reason.chars().any(char::is_control);
    ensure(good, || {
        let fact = format!("a reason is one line of at most {} bytes", limits::REASON);
        Refusal::new("bad_reason", fact, "farmctl node maintenance on --help")
    })
}
