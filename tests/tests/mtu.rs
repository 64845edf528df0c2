//! Path MTU discovery through the farm: a router that cannot pass a packet on tells the virtual IP, and the node that
//! holds the connection must hear it, or a download ends with its first full packet.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

use anyhow::{Context, Result, ensure};
use farm_lab::witness::{
    Case, Content, Heading, Mac, Message, Quoted, Side, Sighting, SynStream, Testimony, Verdict, Witness,
    judge,
};
use farm_lab::{FIRST_VIP, FIRST_VIP6, Family, Mode, Network, Place};
use farm_tests::download::fetch;
use farm_tests::farm::{Farm, Service};
use farm_tests::talk::Servers;

/// The smallest that IPv6 knows.
const NARROW: u16 = 1_280;
/// Clients of each service: no two share an address, for which a kernel would remember what it was told.
const CLIENTS: usize = 16;
/// Services by what makes a bucket.
const SERVICES: [(u16, &str); 2] = [(8081, "source-port"), (8082, "source-address")];

/// Who holds which client's connection.
type Holders = BTreeMap<SocketAddr, Place>;

#[test]
fn in_directed_mode_the_holder_of_a_connection_hears_of_a_narrow_hop() -> Result<()> {
    narrow_hop("mtu-d", Mode::Directed)
}

#[test]
fn in_flood_mode_the_holder_of_a_connection_hears_of_a_narrow_hop() -> Result<()> {
    narrow_hop("mtu-f", Mode::Flood)
}

fn narrow_hop(prefix: &str, mode: Mode) -> Result<()> {
    let farm = Farm::on(prefix, mode, FIRST_VIP6)?;
    farm.narrow(NARROW)?;
    for vip in [FIRST_VIP, FIRST_VIP6] {
        let clients = SynStream::clients(Place::Remote, Family::of(vip), CLIENTS * SERVICES.len());
        for ((port, criterion), clients) in SERVICES.into_iter().zip(clients.chunks(CLIENTS)) {
            let service = Service::tcp(vip, port);
            farm.add_service(service, criterion)?;
            farm.await_applied()?;
            download(&farm, service, clients).with_context(|| format!("{service} by {criterion}"))?;
        }
    }
    Ok(())
}

/// Everybody downloads everything, under the eyes of the witness.
fn download(farm: &Farm, service: Service, clients: &[SocketAddr]) -> Result<()> {
    let _servers = Servers::downloads(farm, service.at)?;
    let vip = service.at.ip();
    let witness = Witness::start(farm, &[vip])?;
    let one = |client: &SocketAddr| Ok((*client, fetch(farm, Place::Remote, *client, service.at)?));
    let holders: Holders = clients.iter().map(one).collect::<Result<_>>()?;
    let testimony = witness.stop()?;
    let holding: BTreeSet<Place> = holders.values().copied().collect();
    ensure!(holding.len() == 3, "void: only {holding:?} held a connection");
    only_the_holder_hears(&testimony, service.at, &holders)?;
    let between = sent_on(&testimony, vip);
    match farm.spec().mode {
        Mode::Directed => ensure!(between > 0, "void: every error reached its node by chance"),
        Mode::Flood => ensure!(between == 0, "a node sent on what everybody has"),
    }
    let case = Case { vips: vec![vip], virtual_mac: farm.virtual_mac(vip)?, ..Case::default() };
    let verdict = judge(&testimony, &case);
    ensure!(verdict == Verdict::Upheld, "{verdict:?}");
    Ok(())
}

/// The router told of each connection, and only the stack of its node heard it.
fn only_the_holder_hears(testimony: &Testimony, service: SocketAddr, holders: &Holders) -> Result<()> {
    for (client, holder) in holders {
        let quoted = Quoted { source: service, destination: *client };
        let told: Vec<&Sighting> =
            testimony.sightings.iter().filter(|s| too_big(s) == Some(Some(quoted))).collect();
        let by_router = told.iter().any(|s| s.place == Place::Router && s.heading == Heading::Leaving);
        ensure!(by_router, "void: the router told nobody of the connection of {client}");
        let heard = told.iter().filter(|s| s.side == Side::Machine && s.heading == Heading::Arriving);
        let heard: BTreeSet<Place> = heard.map(|s| s.place).collect();
        ensure!(
            heard == BTreeSet::from([*holder]),
            "{holder} holds the connection of {client}; {heard:?} heard of it"
        );
    }
    Ok(())
}

/// What is told to have been too big.
fn too_big(sighting: &Sighting) -> Option<Option<Quoted>> {
    let Content::Icmp(icmp) = sighting.frame.content else { return None };
    match icmp.message {
        Message::TooBig(quoted) => Some(quoted),
        Message::EchoRequest | Message::EchoReply | Message::Error(_) | Message::Unasked | Message::Other => {
            None
        }
    }
}

/// Errors that one node sent to another.
fn sent_on(testimony: &Testimony, vip: IpAddr) -> usize {
    let macs: BTreeSet<Mac> = Place::nodes(3).filter_map(|node| node.mac(Network::Lan)).map(Mac).collect();
    let arriving = testimony.sightings.iter().filter(|s| {
        s.side == Side::Cable && s.heading == Heading::Arriving && matches!(s.place, Place::Node(_))
    });
    let errors = arriving.filter(|s| too_big(s).is_some() && s.frame.destination_address() == Some(vip));
    errors.filter(|s| macs.contains(&s.frame.source)).count()
}
