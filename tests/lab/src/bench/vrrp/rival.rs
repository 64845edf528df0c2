//! Farm and keepalived: how each is set up, struck and mended.

use std::net::IpAddr;
use std::time::Duration;

use anyhow::{Context, Result};
use nix::sys::signal::Signal;

use super::{Fault, await_answer, clients};
use crate::lab::{Lab, Spec};
use crate::names::{LabName, Place};
use crate::process::Process;
use crate::record::Role;
use crate::{FIRST_VIP, Status, WEB_MODULE, shell};

/// One survives when one dies and one is frozen.
const NODES: u8 = 3;
/// A master is elected within four adverts; a farm shares buckets out anew.
const LIMIT: Duration = Duration::from_secs(120);
/// The node that is active when all are well.
const FIRST: Place = Place::Node(1);

/// Who keeps the address served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::bench) enum Rival {
    /// VRRP version 3 with so much time between two adverts.
    Keepalived {
        /// That time.
        advert: Duration,
        /// In the figure.
        name: &'static str,
    },
    /// The victim is a follower.
    Farm,
    /// The victim is the leader.
    FarmLeader,
}

const fn keepalived(ms: u64, name: &'static str) -> Rival {
    Rival::Keepalived { advert: Duration::from_millis(ms), name }
}

impl Rival {
    pub(in crate::bench) const ALL: [Self; 5] = [
        keepalived(1_000, "vrrp-1s"),
        keepalived(50, "vrrp-50ms"),
        keepalived(10, "vrrp-10ms"),
        Self::Farm,
        Self::FarmLeader,
    ];

    pub(in crate::bench) fn name(self) -> &'static str {
        match self {
            Self::Keepalived { name, .. } => name,
            Self::Farm => "farm-follower",
            Self::FarmLeader => "farm-leader",
        }
    }

    pub(super) fn is_farm(self) -> bool {
        match self {
            Self::Farm | Self::FarmLeader => true,
            Self::Keepalived { .. } => false,
        }
    }

    /// The leader's death is one case; its other faults would say nothing new.
    pub(super) fn suffers(self, fault: Fault) -> bool {
        match self {
            Self::Keepalived { .. } | Self::Farm => true,
            Self::FarmLeader => fault == Fault::Cut,
        }
    }

    /// Three nodes with web servers whose address is served.
    pub(super) fn up(self, name: &LabName) -> Result<Lab> {
        let spec = Spec::new(name.clone(), NODES);
        let lab = Lab::build(spec)?;
        lab.nodes().try_for_each(|node| lab.start_nginx(node).map(drop))?;
        match self {
            Self::Keepalived { advert, .. } => {
                lab.nodes().try_for_each(|node| start_keepalived(&lab, node, advert))?;
                let client = clients().next().context("a crowd")?;
                await_answer(&lab, client, LIMIT, |by| by == FIRST)?;
            }
            Self::Farm | Self::FarmLeader => {
                lab.run_cluster()?;
                lab.add_web_service_by("source-address")?;
            }
        }
        Ok(lab)
    }

    /// A client, and who answers it.
    pub(super) fn client_and_victim(self, lab: &Lab) -> Result<(IpAddr, Place)> {
        let leader = match self {
            Self::Keepalived { .. } => None,
            Self::Farm | Self::FarmLeader => Some(leader_of_all(lab)?),
        };
        for client in clients() {
            let by = await_answer(lab, client, LIMIT, |_| true)?;
            let suits = match self {
                // On a busy machine another one may have been active for a moment.
                Self::Keepalived { .. } => by == FIRST,
                Self::Farm => Some(by) != leader,
                Self::FarmLeader => Some(by) == leader,
            };
            if suits {
                return Ok((client, by));
            }
        }
        anyhow::bail!("the node that is to be struck answers nobody")
    }

    pub(super) fn strike(self, lab: &Lab, fault: Fault, victim: Place) -> Result<()> {
        match (fault, self) {
            (Fault::Cut, _) => lab.cut(victim),
            (Fault::Killed, _) => lab.power_off(victim),
            (Fault::Frozen, Self::Keepalived { .. }) => signal_keepalived(lab, victim, Signal::SIGSTOP),
            (Fault::Frozen, Self::Farm | Self::FarmLeader) => lab.freeze(victim),
        }
    }

    /// Long after everybody has noticed.
    pub(super) fn settles_within(self) -> Duration {
        const NOTICED: Duration = Duration::from_millis(800);
        match self {
            Self::Keepalived { advert, .. } => NOTICED + 4 * advert,
            Self::Farm | Self::FarmLeader => NOTICED,
        }
    }

    pub(super) fn thaw(self, lab: &Lab, victim: Place) -> Result<()> {
        match self {
            Self::Keepalived { .. } => signal_keepalived(lab, victim, Signal::SIGCONT),
            Self::Farm | Self::FarmLeader => lab.thaw(victim),
        }
    }

    /// All is as before the fault.
    pub(super) fn mend(self, lab: &Lab, fault: Fault, victim: Place) -> Result<()> {
        match (self, fault) {
            (_, Fault::Cut) => lab.heal(victim)?,
            (_, Fault::Frozen) => {}
            (Self::Farm | Self::FarmLeader, Fault::Killed) => lab.power_on(victim)?,
            (Self::Keepalived { advert, .. }, Fault::Killed) => {
                // Its kernel went on living with the address, which a machine that boots does not have.
                lab.namespace(victim).ip(&format!("addr flush to {FIRST_VIP}/32 dev eth0\n"))?;
                lab.heal(victim)?;
                lab.start_nginx(victim)?;
                start_keepalived(lab, victim, advert)?;
            }
        }
        let nodes: Vec<Place> = lab.nodes().collect();
        match self {
            Self::Keepalived { .. } => {
                let client = clients().next().context("a crowd")?;
                await_answer(lab, client, LIMIT, |by| by == FIRST).map(drop)
            }
            Self::Farm | Self::FarmLeader => {
                let back =
                    |s: &Status| s.settled(WEB_MODULE, &nodes) && s.nodes.iter().all(|node| node.heard);
                lab.await_status(Place::Node(1), "every node serves its share", LIMIT, back).map(drop)
            }
        }
    }
}

/// The lower the number of the node, the higher its priority. Real-time priority and locked memory, as farmd has.
fn configuration(node: u8, advert: Duration) -> String {
    let (priority, seconds) = (200 - u16::from(node), advert.as_secs_f64());
    format!(
        "global_defs {{\n router_id node{node}\n vrrp_version 3\n vrrp_rt_priority 10\n vrrp_no_swap\n}}\n\
         vrrp_instance farm {{\n state BACKUP\n interface eth0\n virtual_router_id 77\n priority {priority}\n \
         advert_int {seconds}\n virtual_ipaddress {{\n  {FIRST_VIP}/32 dev eth0\n }}\n}}\n"
    )
}

fn start_keepalived(lab: &Lab, node: Place, advert: Duration) -> Result<()> {
    let Place::Node(number) = node else { anyhow::bail!("{node} is no node") };
    let home = lab.directory(node)?;
    let config = home.join("keepalived.conf");
    std::fs::write(&config, configuration(number, advert))?;
    let mut command = lab.namespace(node).command("keepalived")?;
    command.args(["--dont-fork", "--log-console", "--vrrp", "--use-file"]).arg(&config);
    command.arg("--pid").arg(home.join("keepalived.pid"));
    command.arg("--vrrp_pid").arg(home.join("vrrp.pid"));
    lab.spawn(node, Role::Keepalived, &mut command, &home.join("keepalived.log")).map(drop)
}

/// The daemon and the process that speaks VRRP.
fn signal_keepalived(lab: &Lab, node: Place, signal: Signal) -> Result<()> {
    let name = |pid: &i32| std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    let ours = lab.namespace(node).processes()?.into_iter().filter(|pid| name(pid).trim() == "keepalived");
    let ours: Vec<Process> = ours.filter_map(|pid| Process::of(pid).ok()).collect();
    anyhow::ensure!(!ours.is_empty(), "keepalived does not run on {node}");
    ours.into_iter().try_for_each(|process| process.signal(signal).map(drop))
}

/// The leader, when all nodes name the same one and share the service: a node that was cut off may know a former one.
fn leader_of_all(lab: &Lab) -> Result<Place> {
    let nodes: Vec<Place> = lab.nodes().collect();
    shell::await_value("all nodes name one leader", LIMIT, || {
        let all: Vec<Status> = nodes.iter().map(|node| lab.status(*node)).collect::<Result<_>>()?;
        let leader = all.first().and_then(Status::leader);
        let agreed = |status: &Status| status.leader() == leader && status.settled(WEB_MODULE, &nodes);
        Ok(leader.filter(|_| all.iter().all(agreed)))
    })
}
