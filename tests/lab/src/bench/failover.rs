//! One fault under a stream of SYNs from both clients, judged from the wire.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail, ensure};

use super::fault::Fault;
use super::journal;
use super::notice::{outage, taken_over};
use crate::lab::{Lab, Mode};
use crate::names::{Family, Network, Place};
use crate::topology::mac_text;
use crate::witness::{
    BootTime, Outcome, RunningSyns, Side, Syn, SynStream, Testimony, Witness, acceptances, outcomes, owners,
};
use crate::{FIRST_VIP, WEB_MODULE, WEB_PORT, shell};

const SERVICE: SocketAddr = SocketAddr::new(FIRST_VIP, WEB_PORT);
/// Who asks: a client on the link and one behind the router.
pub(super) const CLIENTS: [Place; 2] = [Place::Client, Place::Remote];
/// SYNs per second of each: every second one of a client of the victim, so 250 per second.
const RATE: u32 = 500;
/// Clients that are tried to find out whose they are.
const TRIED: usize = 400;
/// SYNs per second meanwhile.
const TRIED_RATE: u32 = 1_000;
/// Clients of the victim, and as many of the others: each tries again after 0.4 s.
const PLAYED: usize = 100;
/// The announcements of a change are repeated 3 s after it for the last time: then ARP entries stay as they are.
const ANNOUNCED: Duration = Duration::from_secs(4);
/// Attempts before the fault, and after it.
const BEFORE: Duration = Duration::from_millis(500);
const AFTER: Duration = Duration::from_secs(2);
/// Many times what the damping of a node that went twice and one planned change take.
const RETURN_LIMIT: Duration = Duration::from_secs(120);

/// What one fault did to the clients of one machine.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sample {
    pub(super) from: Place,
    /// Did the frames of this machine enter at the victim? `None`: in flood mode they enter everywhere.
    pub(super) entry: Option<bool>,
    /// From the fault to the first acceptance of a client of the victim by another node.
    pub(super) taken_over: Option<Duration>,
    /// Longest gap for clients of the victim.
    pub(super) victims: Option<Duration>,
    /// Longest gap for all others.
    pub(super) healthy: Option<Duration>,
}

/// Who plays the clients of one machine.
struct Cast {
    from: Place,
    entry: Option<bool>,
    of_victim: BTreeSet<SocketAddr>,
    others: BTreeSet<SocketAddr>,
}

/// Lets `fault` happen once and mends it; one sample per client machine. Frames enter at the victim in every second
/// run of directed mode.
pub(super) fn run(lab: &Lab, fault: Fault, run: usize) -> Result<Vec<Sample>> {
    let nodes: Vec<Place> = lab.nodes().collect();
    let status = lab.await_status(nodes[0], "a leader", RETURN_LIMIT, |status| status.leader().is_some())?;
    let leader = status.leader().context("awaited above")?;
    let victim = fault.victim(&nodes, leader, run);
    let survivor = *nodes.iter().find(|node| **node != victim).context("a farm of one has no failover")?;
    let witness = Witness::start(lab, &[FIRST_VIP])?;
    let casts = cast(lab, &witness, victim)?;
    if lab.spec().mode == Mode::Directed {
        await_announced(lab, leader)?;
        let entry = if run.is_multiple_of(2) { victim } else { survivor };
        CLIENTS.iter().try_for_each(|from| point_at(lab, *from, entry))?;
    }
    let casts = casts.into_iter().map(|cast| entering(lab, cast, victim)).collect::<Result<Vec<_>>>()?;
    let opening = BootTime::now();
    let streams = casts.iter().map(|cast| start(lab, cast)).collect::<Result<Vec<_>>>()?;
    std::thread::sleep(BEFORE);
    let began = BootTime::now();
    let struck = fault.strike(lab, victim);
    std::thread::sleep(AFTER);
    let sent = streams.into_iter().map(RunningSyns::stop).collect::<Result<Vec<_>>>()?;
    let mut testimony = witness.stop()?;
    // Those that were tried out used the same sequence numbers.
    testimony.sightings.retain(|sighting| sighting.at >= opening);
    struck?;
    fault.mend(lab, victim)?;
    lab.await_status(survivor, "every node serves its share again", RETURN_LIMIT, |status| {
        status.settled(WEB_MODULE, &nodes) && status.nodes.iter().all(|node| node.heard)
    })?;
    ensure!(testimony.lost == 0, "void: the taps lost {} frames", testimony.lost);
    let at = if fault.cuts() { last_frame(&testimony, victim, began) } else { began };
    Ok(casts.iter().zip(&sent).map(|(cast, sent)| sample(cast, sent, &testimony, victim, at)).collect())
}

/// Waits until the announcements of the last change are over.
fn await_announced(lab: &Lab, leader: Place) -> Result<()> {
    let steps = journal::events(lab, leader, SystemTime::now() - ANNOUNCED)?;
    let steps = steps.iter().filter(|event| event.kind.starts_with("buckets_"));
    if let Some(last) = steps.map(|step| Duration::from_millis(step.time_unix_ms)).max() {
        let over = UNIX_EPOCH + last + ANNOUNCED;
        std::thread::sleep(over.duration_since(SystemTime::now()).unwrap_or_default());
    }
    Ok(())
}

/// A command needs some milliseconds to pull a cable: what still passed it shows that it was not pulled yet.
fn last_frame(testimony: &Testimony, victim: Place, began: BootTime) -> BootTime {
    let cable = testimony.sightings.iter().filter(|s| s.place == victim && s.side == Side::Cable);
    cable.map(|s| s.at).max().map_or(began, |last| last.max(began))
}

fn sample(cast: &Cast, sent: &[Syn], testimony: &Testimony, victim: Place, at: BootTime) -> Sample {
    let accepted = acceptances(&testimony.sightings, &[FIRST_VIP]);
    let outcomes = outcomes(sent, &accepted);
    let of = |clients: &BTreeSet<SocketAddr>| -> Vec<Outcome> {
        outcomes.iter().filter(|o| clients.contains(&o.syn.source)).copied().collect()
    };
    Sample {
        from: cast.from,
        entry: cast.entry,
        taken_over: taken_over(&accepted, &cast.of_victim, victim, at),
        victims: outage(&of(&cast.of_victim)),
        healthy: outage(&of(&cast.others)),
    }
}

/// Tries many clients of each machine and takes those that the victim answered, and as many others.
fn cast(lab: &Lab, witness: &Witness, victim: Place) -> Result<Vec<Cast>> {
    let tried = CLIENTS.iter().map(|from| try_out(lab, witness, *from)).collect::<Result<Vec<_>>>()?;
    let casts = CLIENTS.iter().zip(tried).map(|(from, outcomes)| {
        let owners = owners(&outcomes);
        let some = |mine: bool| -> BTreeSet<SocketAddr> {
            let those = owners.iter().filter(|(_, owner)| (**owner == victim) == mine);
            those.map(|(client, _)| *client).take(PLAYED).collect()
        };
        let (of_victim, others) = (some(true), some(false));
        ensure!(
            of_victim.len() >= PLAYED / 2 && others.len() >= PLAYED / 2,
            "{from}: too few clients were answered"
        );
        Ok(Cast { from: *from, entry: None, of_victim, others })
    });
    casts.collect()
}

/// The same, knowing where its frames enter.
fn entering(lab: &Lab, cast: Cast, victim: Place) -> Result<Cast> {
    let entry = entry(lab, cast.from)?.map(|entry| entry == victim);
    Ok(Cast { entry, ..cast })
}

fn try_out(lab: &Lab, witness: &Witness, from: Place) -> Result<Vec<Outcome>> {
    /// Twice the time that the stream needs, for a busy machine.
    const LIMIT: Duration = Duration::from_secs(5);
    let sources = SynStream::clients(from, Family::of(FIRST_VIP), TRIED);
    let stream =
        SynStream { from, sources: sources.clone(), service: SERVICE, rate: TRIED_RATE }.start(lab)?;
    let answered = shell::await_value("the clients are answered", LIMIT, || {
        let seen = acceptances(&witness.so_far(), &[FIRST_VIP]);
        let clients: BTreeSet<SocketAddr> = seen.iter().map(|a| a.client).collect();
        Ok(sources.iter().all(|source| clients.contains(source)).then_some(seen))
    });
    let sent = stream.stop()?;
    Ok(outcomes(&sent, &answered?))
}

/// A client of the victim and one of the others, in turn.
fn start(lab: &Lab, cast: &Cast) -> Result<RunningSyns> {
    let sources = cast.of_victim.iter().zip(&cast.others).flat_map(|(a, b)| [*a, *b]).collect();
    SynStream { from: cast.from, sources, service: SERVICE, rate: RATE }.start(lab)
}

/// Who resolves the virtual IP for the clients on `from`.
fn resolver(from: Place) -> Place {
    if from == Place::Remote { Place::Router } else { from }
}

/// Makes `entry` the node where the frames of `from` enter, as if it had answered the question for the address.
fn point_at(lab: &Lab, from: Place, entry: Place) -> Result<()> {
    let mac = mac_text(entry.mac(Network::Lan).context("a node is on the link")?);
    let batch = format!("neigh replace {FIRST_VIP} dev eth0 lladdr {mac} nud reachable\n");
    lab.namespace(resolver(from)).ip(&batch)
}

/// The node that the ARP entry of `from` names; `None` in flood mode, where it names nobody.
fn entry(lab: &Lab, from: Place) -> Result<Option<Place>> {
    if lab.spec().mode == Mode::Flood {
        return Ok(None);
    }
    let vip = FIRST_VIP.to_string();
    let mut command = lab.namespace(resolver(from)).command("ip")?;
    let shown = shell::run(command.args(["neigh", "show", &vip, "dev", "eth0"]))?;
    let named =
        lab.nodes().find(|node| node.mac(Network::Lan).is_some_and(|mac| shown.contains(&mac_text(mac))));
    if named.is_none() {
        bail!("the ARP entry names no node: {shown:?}");
    }
    Ok(named)
}
