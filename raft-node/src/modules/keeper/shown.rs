//! A module on this node as people see it.

use farm_core::id::NodeId;
use farm_core::life::{By, Cause, Place, Request, State, Status};
use farm_core::model::ModuleName;
use farm_proto::v1;

use super::Kept;
use crate::journal::now_ms;

/// One that cannot be had, and why.
pub(super) fn unusable(name: &ModuleName, me: NodeId, why: &str) -> v1::ModuleLife {
    v1::ModuleLife {
        module: name.0.clone(),
        node: me.0,
        place: v1::Place::Stop.into(),
        status: v1::LifeStatus::NotReady.into(),
        since_ms: now_ms(),
        cause: why.to_owned(),
        failed: true,
        ..v1::ModuleLife::default()
    }
}

impl Kept {
    pub(super) fn sentence(&self) -> String {
        let State { place, status } = self.life.state();
        let status = match status {
            Status::NotReady => "not ready",
            Status::Transient => "on its way",
            Status::Ready => "ready",
        };
        let cause = self.cause();
        let because = if cause.is_empty() { String::new() } else { format!(": {cause}") };
        format!("{} is in {} ({status}){because}", self.keeper.name, place.name())
    }

    fn cause(&self) -> String {
        let asked = |request: Request| match request {
            Request::Start => "start",
            Request::Restart => "restart",
            Request::Wait => "wait",
            Request::StopStart => "stopstart",
            Request::Stop => "stop",
        };
        match self.life.cause() {
            // What was known before the daemon was restarted.
            None => self.why.clone(),
            Some(Cause::Asked(request, By::Hand | By::Haste)) => format!("{} was asked for", asked(request)),
            Some(Cause::Asked(request, By::Automatism)) => format!("{} because {}", asked(request), self.why),
            Some(Cause::TooOften) => {
                let max = self.newest.definition.maxloop;
                format!("it had to be helped more than {max} times; last: {}", self.why)
            }
            Some(Cause::Failed(_) | Cause::Left) => self.why.clone(),
        }
    }

    /// Why it was given up, where it was.
    pub(super) fn failure(&self) -> Option<String> {
        let asked = matches!(self.life.cause(), Some(Cause::Asked(_, By::Hand | By::Haste)));
        match self.life.cause() {
            _ if !self.rests() || asked => None,
            None => self.remembered.failed.clone(),
            Some(_) => Some(self.cause()),
        }
    }

    pub(super) fn shown_life(&self) -> v1::ModuleLife {
        let State { place, status } = self.life.state();
        v1::ModuleLife {
            module: self.keeper.name.0.clone(),
            node: self.keeper.member.me.0,
            place: match place {
                Place::Stop => v1::Place::Stop,
                Place::Wait => v1::Place::Wait,
                Place::Up => v1::Place::Up,
            }
            .into(),
            status: match status {
                Status::NotReady => v1::LifeStatus::NotReady,
                Status::Transient => v1::LifeStatus::Transient,
                Status::Ready => v1::LifeStatus::Ready,
            }
            .into(),
            since_ms: self.since_ms,
            cause: self.cause(),
            loops: self.life.loops().noted().1,
            resources: self.supervision.resources(),
            wanted: self.life.is_wanted() || self.shut,
            revision: self.running.revision,
            failed: self.failure().is_some(),
            busy: self.life.step().is_some() || self.life.is_asked(),
        }
    }
}
