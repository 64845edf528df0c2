//! Jumbo frames, and frames whose checksums and segments the sender's kernel left to be done later: nothing is lost or
//! changed on the way to a node, between two of them, or by a change of owners in the middle of it.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use anyhow::{Result, ensure};
use farm_lab::witness::SynStream;
use farm_lab::{FIRST_VIP, FIRST_VIP6, Family, Mode, Place, Spec, WEB_MODULE, shell};
use farm_tests::farm::{Farm, Service};
use farm_tests::talk::Servers;
use farm_tests::transfer::Transfer;

const ONE: Place = Place::Node(1);
const TWO: Place = Place::Node(2);
const THREE: Place = Place::Node(3);
/// What is usual for jumbo frames, and the least that TCP makes of it behind the longest headers.
const MTU: u16 = 9_000;
const SEGMENT: u32 = 8_900;
/// Where the transfers go.
const PORT: u16 = 8090;
/// Bytes of each transfer before, and after, the change: hundreds of windows.
const ENOUGH: u64 = 8 << 20;

#[test]
fn in_directed_mode_jumbo_frames_arrive_whole() -> Result<()> {
    carried("jumbo-d", |spec| spec.mode(Mode::Directed))
}

#[test]
fn in_flood_mode_jumbo_frames_arrive_whole() -> Result<()> {
    carried("jumbo-f", |spec| spec.mode(Mode::Flood))
}

/// As on a network card whose driver runs the filter: nodes get what the switch sends finished.
#[test]
fn with_a_filter_in_the_driver_jumbo_frames_arrive_whole() -> Result<()> {
    carried("jumbo-n", Spec::native)
}

fn carried(prefix: &str, spec: impl FnOnce(Spec) -> Spec) -> Result<()> {
    let farm = Farm::unborn_of(prefix, spec)?;
    farm.widen(MTU)?;
    farm.run_farm()?;
    farm.await_shared_by(&[ONE, TWO, THREE])?;
    [Place::Client, Place::Remote].into_iter().try_for_each(|place| offloads(&farm, place))?;
    let services = [FIRST_VIP, FIRST_VIP6].map(|vip| Service::tcp(vip, PORT));
    services.iter().try_for_each(|service| farm.add_service(*service, "source-port"))?;
    farm.await_applied()?;
    let mut servers = Vec::new();
    let mut transfers = Vec::new();
    for service in services {
        servers.push(Servers::mirrors(&farm, service.at)?);
        for (from, owner) in [(Place::Client, ONE), (Place::Client, TWO), (Place::Remote, THREE)] {
            transfers.push(transfer(&farm, from, owner, service)?);
        }
    }
    transfers.iter().try_for_each(|transfer| transfer.await_bytes(ENOUGH))?;

    let known = farm.events(ONE)?.len();
    farm.farmctl(ONE, &["module", "weight", WEB_MODULE, "node2", "0"])?;
    farm.await_event(ONE, "buckets_activated", known)?;
    let held: BTreeSet<Place> = transfers.iter().map(|transfer| transfer.node).collect();
    ensure!(held == BTreeSet::from([ONE, TWO, THREE]), "void: only {held:?} held a transfer");
    transfers.iter().try_for_each(|transfer| transfer.await_bytes(ENOUGH))?;
    transfers.into_iter().try_for_each(|transfer| transfer.stop().map(drop))?;
    farm.await_shared_by(&[ONE, THREE])?;
    sent_on(&farm)
}

/// The kernel of `place` leaves checksums and segments to its card, which is none.
fn offloads(farm: &Farm, place: Place) -> Result<()> {
    let shown = shell::run(farm.command(place, "ethtool")?.args(["-k", "eth0"]))?;
    for offload in ["tx-checksumming: on", "tcp-segmentation-offload: on", "generic-segmentation-offload: on"]
    {
        ensure!(shown.contains(offload), "void: not {offload} on {place}: {shown}");
    }
    Ok(())
}

/// A transfer of a client on `from` whose bucket is that of `owner`.
fn transfer(farm: &Farm, from: Place, owner: Place, service: Service) -> Result<Transfer> {
    const CLIENTS: usize = 60;
    let client = client_of(farm, from, owner, service, CLIENTS)?;
    let transfer = Transfer::start(farm, from, client, service.at, SEGMENT)?;
    ensure!(transfer.node == owner, "{owner} owns {client}, and {} answered", transfer.node);
    Ok(transfer)
}

fn client_of(farm: &Farm, from: Place, owner: Place, service: Service, clients: usize) -> Result<SocketAddr> {
    let family = Family::of(service.at.ip());
    for client in SynStream::clients(from, family, clients) {
        if farm.owner(owner, client, service)? == owner {
            return Ok(client);
        }
    }
    anyhow::bail!("void: {owner} owns none of {clients} clients on {from}")
}

/// In directed mode most frames of those transfers came to another node first.
fn sent_on(farm: &Farm) -> Result<()> {
    if farm.spec().mode == Mode::Flood {
        return Ok(());
    }
    let counts =
        farm.nodes().map(|node| farm.counter(node, "forward_owner")).collect::<Result<Vec<u64>>>()?;
    ensure!(counts.iter().sum::<u64>() > 1_000, "void: nodes sent on {counts:?} frames only");
    Ok(())
}
