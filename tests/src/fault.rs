//! What may happen to a server, and what must hold through it.

use std::net::IpAddr;

use anyhow::Result;
use farm_lab::witness::BootTime;
use farm_lab::{FIRST_VIP, Mode, Place};

use crate::farm::Farm;
use crate::load::{Load, Seen};

/// Something that happens to a node, and its end.
#[derive(Clone, Copy, Debug)]
pub struct Fault {
    /// Happens; returns when the node can no longer renew its lease.
    strike: fn(&Farm, Place) -> Result<BootTime>,
    /// Do clients' frames still reach the node?
    hears_clients: bool,
    /// Does the node keep its filter?
    keeps_filter: bool,
    mend: fn(&Farm, Place) -> Result<()>,
}

impl Fault {
    /// The same where the others go on without the node: it comes back by joining anew, for a moment without a filter.
    #[must_use]
    pub const fn overruled(self) -> Self {
        Self { keeps_filter: false, ..self }
    }
}

/// Its cables are pulled.
pub const CUT: Fault = Fault {
    strike: |farm, victim| farm.cut(victim).map(|()| BootTime::now()),
    hears_clients: false,
    keeps_filter: true,
    mend: |farm, victim| farm.heal(victim),
};
/// Its daemon does nothing.
pub const FROZEN: Fault = Fault {
    strike: |farm, victim| farm.freeze(victim).map(|()| BootTime::now()),
    hears_clients: true,
    keeps_filter: true,
    mend: |farm, victim| farm.thaw(victim),
};
/// Its daemon is killed.
pub const KILLED: Fault = Fault {
    strike: |farm, victim| farm.kill_farmd(victim).map(|()| BootTime::now()),
    hears_clients: true,
    keeps_filter: true,
    mend: |farm, victim| farm.start_farmd(victim).map(drop),
};
/// Its daemon is told to stop.
pub const STOPPED: Fault = Fault {
    strike: |farm, victim| farm.terminate_farmd(victim).map(|()| BootTime::now()),
    hears_clients: true,
    keeps_filter: false,
    mend: KILLED.mend,
};

/// Lets the fault happen to a server under load from `from` and end again; the judgement must hold.
///
/// # Errors
/// It does not, or the farm does not come to rest.
pub fn survive(farm: &Farm, victim: Place, from: Place, fault: &Fault) -> Result<Seen> {
    survive_on(farm, FIRST_VIP, victim, from, fault)
}

/// The same under load on `vip`.
///
/// # Errors
/// As [`survive`].
pub fn survive_on(farm: &Farm, vip: IpAddr, victim: Place, from: Place, fault: &Fault) -> Result<Seen> {
    let all: Vec<Place> = farm.servers().collect();
    let survivors: Vec<Place> = farm.servers().filter(|place| *place != victim).collect();
    let mut load = Load::on(farm, from, vip)?;
    load.await_answers_of(&all)?;
    let at = BootTime::now();
    let silent = (fault.strike)(farm, victim)?;
    farm.await_shared_by(&survivors)?;
    farm.leader_among(&survivors)?;
    load.await_answers_of(&survivors)?;
    load.await_everybody()?;
    survivors.iter().for_each(|survivor| load.expect_change(victim, *survivor, at));
    // In directed mode nobody sends a dead node anything.
    if fault.hears_clients && farm.spec().mode == Mode::Flood {
        load.expect_closed(victim, Load::closed_since(silent))?;
    }
    (fault.mend)(farm, victim)?;
    // In the eyes of a survivor: the victim still tells what it knew before.
    let back: Vec<Place> = survivors.iter().copied().chain([victim]).collect();
    farm.await_shared_by(&back)?;
    if !fault.keeps_filter {
        load.expect_no_filter(victim, at);
    }
    let back = BootTime::now();
    load.await_answers_of(&all)?;
    load.await_everybody()?;
    survivors.iter().for_each(|survivor| load.expect_change(*survivor, victim, back));
    load.upheld(survivors[0])
}
