//! What only a node itself knows of itself, for the others to show.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use farm_core::apply::LEVEL;
use farm_core::controller::DrainState;
use farm_core::id::Incarnation;
use farm_core::model::ModuleName;
use farm_core::notice::Open;
use farm_core::time::BootTime;
use farm_dataplane::clock::boot_now;
use farm_proto::v1;

use crate::lease::LeaseHandle;
use crate::modules::Modules;
use crate::node::{HostView, Spreads};
use crate::notify::Told;

/// Sockets of buckets that are to leave this node, by module, as of the last survey.
#[derive(Debug, Default)]
pub struct Drains(Mutex<BTreeMap<ModuleName, u64>>);

impl Drains {
    /// Takes the result of a survey.
    pub fn put(&self, module: &ModuleName, state: &DrainState) {
        self.lock().insert(module.clone(), state.sockets);
    }

    /// Forgets modules in which nothing is to leave any more.
    pub fn keep(&self, modules: &[ModuleName]) {
        self.lock().retain(|name, _| modules.contains(name));
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<ModuleName, u64>> {
        // Inserting and removing are one step each: a panic elsewhere leaves the map whole.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The parts of a node that tell.
#[derive(Clone)]
pub struct Mirror {
    /// The run of its daemon.
    pub run: Incarnation,
    /// Its lease.
    pub lease: LeaseHandle,
    /// Its filter and host.
    pub host: Arc<HostView>,
    /// Its drains.
    pub drains: Arc<Drains>,
    /// How its connections lie over its buckets.
    pub spreads: Arc<Spreads>,
    /// Its modules.
    pub modules: Arc<Modules>,
    /// What people were told.
    pub told: Arc<Told>,
}

impl Mirror {
    /// Of a daemon that has just started.
    #[must_use]
    pub fn new(run: Incarnation, lease: LeaseHandle, host: Arc<HostView>) -> Self {
        Self {
            run,
            lease,
            host,
            drains: Arc::default(),
            spreads: Arc::default(),
            modules: Arc::default(),
            told: Arc::default(),
        }
    }

    /// What is true now.
    #[must_use]
    pub fn look(&self) -> v1::LookResponse {
        let sockets = |(module, sockets): (&ModuleName, &u64)| v1::ModuleSockets {
            module: module.0.clone(),
            sockets: *sockets,
        };
        v1::LookResponse {
            lease_left_ms: BootTime(self.lease.deadline()).since(BootTime(boot_now())).as_millis(),
            filter_ok: self.host.sound(),
            applied: self.lease.applied().0,
            feature_level: LEVEL.0,
            version: env!("CARGO_PKG_VERSION").into(),
            run: self.run.0.to_vec().into(),
            lives: self.modules.lives(),
            told: self.told.open().into_iter().map(told).collect(),
            draining: self.drains.lock().iter().map(sockets).collect(),
        }
    }
}

/// As the wire has it; its age is not known any more.
fn told(open: Open) -> v1::Condition {
    let Open { resource, word, red, cause, next } = open;
    v1::Condition { code: word, resource, since_ms: 0, cause, next, passing: !red }
}
