//! The first walk of ARCHITECTURE.md: one packet. What `explain` names is who answers, seen on the wire.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};

use anyhow::{Context, Result, ensure};
use farm_lab::witness::{
    Arp, BootTime, Case, Content, Heading, Kind, Mac, Side, Sighting, SynStream, Testimony, Verdict, Witness,
    acceptances, judge,
};
use farm_lab::{FIRST_VIP, Mode, Network, Place, shell};
use farm_tests::farm::{Explained, Farm, LIMIT, Service};
use farm_tests::talk::Echo;

/// Clients of each kind that are played.
const CLIENTS: usize = 24;
/// Ports of the services beside the web service, by what makes a bucket.
const TCP_BY_ADDRESS: u16 = 81;
const UDP_BY_PORT: u16 = 7000;
const UDP_BY_ADDRESS: u16 = 7001;

/// Who must answer which client of which service.
type Owners = BTreeMap<(SocketAddrV4, Service), Place>;

#[test]
fn in_directed_mode_a_packet_is_answered_by_whom_explain_names() -> Result<()> {
    let farm = farm("packet-d", Mode::Directed)?;
    let seen = walk(&farm)?;
    ensure!(carried_on(&seen) > 0, "no node sent anything on: the walk was not tried");
    Ok(())
}

#[test]
fn in_flood_mode_a_packet_is_answered_by_whom_explain_names() -> Result<()> {
    let farm = farm("packet-f", Mode::Flood)?;
    let seen = walk(&farm)?;
    ensure!(carried_on(&seen) == 0, "a node sent on what everybody has");
    let virtual_mac = farm.learnt_mac()?;
    let sources: BTreeSet<Mac> = seen.sightings.iter().map(|s| s.frame.source).collect();
    ensure!(!sources.contains(&virtual_mac), "{virtual_mac:?} was a source: the switch stops flooding");
    Ok(())
}

/// A farm with a TCP and a UDP service for each criterion.
fn farm(prefix: &str, mode: Mode) -> Result<Farm> {
    let farm = Farm::up(prefix, mode)?;
    for (service, criterion) in [
        (Service::tcp(TCP_BY_ADDRESS), "source-address"),
        (Service::udp(UDP_BY_PORT), "source-port"),
        (Service::udp(UDP_BY_ADDRESS), "source-address"),
    ] {
        farm.add_service(service, criterion)?;
    }
    farm.await_applied()?;
    Ok(farm)
}

/// Sends every kind of packet from the link and from behind the router, and compares who answers with `explain`.
fn walk(farm: &Farm) -> Result<Testimony> {
    let _servers = [
        Echo::tcp(farm, TCP_BY_ADDRESS)?,
        Echo::udp(farm, Service::udp(UDP_BY_PORT).at)?,
        Echo::udp(farm, Service::udp(UDP_BY_ADDRESS).at)?,
    ];
    let epoch = farm.status(Place::Node(1))?.epoch;
    let witness = Witness::start(farm, &[FIRST_VIP])?;
    let mut owners = Owners::new();
    let mut pinged = BTreeMap::new();
    for from in [Place::Client, Place::Remote] {
        let clients = SynStream::clients(from, CLIENTS);
        for service in [Service::tcp(farm_lab::WEB_PORT), Service::tcp(TCP_BY_ADDRESS)] {
            owners.extend(explained(farm, &clients, service)?);
            connect(farm, &witness, from, &clients, service)?;
        }
        for service in [Service::udp(UDP_BY_PORT), Service::udp(UDP_BY_ADDRESS)] {
            owners.extend(explained(farm, &clients, service)?);
            clients.iter().try_for_each(|client| send_datagram(farm, from, *client, service))?;
        }
        for client in clients.iter().take(CLIENTS / 3) {
            // An echo request has no ports: its bucket is that of the address.
            pinged.insert(*client.ip(), owners[&(*client, Service::udp(UDP_BY_ADDRESS))]);
            ping(farm, from, *client.ip())?;
        }
    }
    let asked = resolve(farm)?;
    let testimony = witness.stop()?;
    let now = farm.status(Place::Node(1))?.epoch;
    ensure!(now == epoch, "void: the owners changed meanwhile (epoch {epoch} to {now})");
    answered_by_their_owners(&testimony, &owners, &pinged)?;
    resolved_by_one(farm, &testimony, asked)?;
    only_with_proof(farm, &testimony)?;
    let virtual_mac = (farm.spec().mode == Mode::Flood).then(|| farm.learnt_mac()).transpose()?;
    let verdict = judge(&testimony, &Case { vips: vec![FIRST_VIP], virtual_mac, ..Case::default() });
    ensure!(verdict == Verdict::Upheld, "{verdict:?}");
    Ok(testimony)
}

/// Asks the nodes in turn for the owner of each client; on the owner, program and pure function must accept.
fn explained(farm: &Farm, clients: &[SocketAddrV4], service: Service) -> Result<Owners> {
    let names = farm.names(Place::Node(1))?;
    let mut owners = Owners::new();
    for (client, node) in clients.iter().zip(farm.nodes().collect::<Vec<_>>().into_iter().cycle()) {
        let said = farm.explain(node, *client, service)?;
        let owner = *names.get(&said.owner).with_context(|| format!("{said:?}"))?;
        check_explained(farm, node, owner, &said)?;
        let own = farm.explain(owner, *client, service)?;
        ensure!(own.bucket == said.bucket && own.owner == said.owner, "{node}: {said:?}, {owner}: {own:?}");
        check_explained(farm, owner, owner, &own)?;
        owners.insert((*client, service), owner);
    }
    let serving: BTreeSet<Place> = owners.values().copied().collect();
    ensure!(serving.len() == 3, "void: {} clients fall to {serving:?} only", clients.len());
    Ok(owners)
}

fn check_explained(farm: &Farm, asked: Place, owner: Place, said: &Explained) -> Result<()> {
    let expected = match (asked == owner, farm.spec().mode) {
        (true, _) => "accept_owner",
        (false, Mode::Directed) => "forward_owner",
        (false, Mode::Flood) => "not_owner",
    };
    let agreed = said.agree && said.decided == expected && said.program == expected;
    ensure!(agreed, "{asked}, asked for a bucket of {owner}, says {said:?}");
    Ok(())
}

/// A SYN of each client, until each was answered.
fn connect(
    farm: &Farm,
    witness: &Witness,
    from: Place,
    clients: &[SocketAddrV4],
    service: Service,
) -> Result<()> {
    let stream = SynStream { from, sources: clients.to_vec(), service: service.at, rate: 200 };
    let running = stream.start(farm)?;
    let answered = || {
        let all = acceptances(&witness.so_far(), &[FIRST_VIP]);
        let of: BTreeSet<SocketAddrV4> =
            all.iter().filter(|a| a.service == service.at).map(|a| a.client).collect();
        Ok(clients.iter().all(|client| of.contains(client)).then_some(()))
    };
    let reached = shell::await_value(&format!("{service} answers everybody from {from}"), LIMIT, answered);
    running.stop()?;
    reached
}

/// A datagram there and back.
fn send_datagram(farm: &Farm, from: Place, client: SocketAddrV4, service: Service) -> Result<()> {
    let socket = farm.namespace(from).run(|| UdpSocket::bind(client).context("a client's address"))?;
    socket.set_read_timeout(Some(LIMIT))?;
    socket.connect(service.at)?;
    socket.send(b"question")?;
    let mut answer = [0; 16];
    let length = socket.recv(&mut answer).with_context(|| format!("{client} to {service}"))?;
    ensure!(&answer[..length] == b"question", "{client} got other data back");
    Ok(())
}

fn ping(farm: &Farm, from: Place, source: Ipv4Addr) -> Result<()> {
    let (source, vip) = (source.to_string(), FIRST_VIP.to_string());
    let args = ["-n", "-c", "1", "-W", "10", "-I", &source, &vip];
    shell::run(farm.command(from, "ping")?.args(args)).map(drop)
}

/// Makes the client ask for the hardware address of the virtual IP; since when.
fn resolve(farm: &Farm) -> Result<BootTime> {
    let vip = FIRST_VIP.to_string();
    let before = BootTime::now();
    shell::run(farm.command(Place::Client, "ip")?.args(["neigh", "flush", "to", &vip]))?;
    let source = Place::Client.crowd().nth(7).context("a crowd")?;
    ping(farm, Place::Client, source)?;
    Ok(before)
}

fn answered_by_their_owners(
    testimony: &Testimony,
    owners: &Owners,
    pinged: &BTreeMap<Ipv4Addr, Place>,
) -> Result<()> {
    let mut heard: BTreeSet<(SocketAddrV4, SocketAddrV4, Kind)> = BTreeSet::new();
    for a in acceptances(&testimony.sightings, &[FIRST_VIP]) {
        let expected = match a.kind {
            // The client of `resolve` is not among those that were explained.
            Kind::Icmp => pinged.get(a.client.ip()).copied(),
            Kind::Datagram => owners.get(&(a.client, Service { at: a.service, protocol: "udp" })).copied(),
            Kind::Opened(_) | Kind::Refused | Kind::Established(_) => {
                owners.get(&(a.client, Service { at: a.service, protocol: "tcp" })).copied()
            }
        };
        let other = expected.is_some_and(|owner| owner != a.node);
        ensure!(!other, "{expected:?} owns the bucket, and this happened: {a:?}");
        heard.insert((a.client, a.service, kind_only(a.kind)));
    }
    for (client, service) in owners.keys() {
        let kind = if service.protocol == "udp" { Kind::Datagram } else { Kind::Opened(0) };
        ensure!(heard.contains(&(*client, service.at, kind)), "nobody answered {client} for {service}");
    }
    let echoes = heard.iter().filter(|(.., kind)| *kind == Kind::Icmp).count();
    ensure!(echoes >= pinged.len(), "{echoes} echo replies to {} clients", pinged.len());
    Ok(())
}

fn kind_only(kind: Kind) -> Kind {
    match kind {
        Kind::Opened(_) => Kind::Opened(0),
        Kind::Refused | Kind::Datagram | Kind::Icmp | Kind::Established(_) => kind,
    }
}

/// Each request for the virtual IP since `asked` got one answer, from the owner of the requester's bucket.
fn resolved_by_one(farm: &Farm, testimony: &Testimony, asked: BootTime) -> Result<()> {
    let arps = testimony.sightings.iter().filter(|s| s.at >= asked && s.side == Side::Cable);
    let arps = arps.filter_map(|s| match s.frame.content {
        Content::Arp(arp) => Some((s, arp)),
        _ => None,
    });
    let requests: Vec<Arp> = arps
        .clone()
        .filter(|(s, arp)| {
            s.place == Place::Client && s.heading == Heading::Leaving && arp.target == FIRST_VIP
        })
        .map(|(_, arp)| arp)
        .collect();
    let answers: Vec<Place> = arps
        .filter(|(s, arp)| {
            s.heading == Heading::Leaving && arp.sender == FIRST_VIP && arp.operation == Arp::REPLY
        })
        .map(|(s, _)| s.place)
        .collect();
    let requester = requests.first().context("the client asked")?.sender;
    let client = SocketAddrV4::new(requester, 0);
    let owner = farm.owner(Place::Node(2), client, Service::udp(UDP_BY_ADDRESS))?;
    ensure!(
        !answers.is_empty() && answers.len() <= requests.len(),
        "{requests:?} were answered by {answers:?}"
    );
    ensure!(answers.iter().all(|node| *node == owner), "{owner} owns {requester}; answered by {answers:?}");
    Ok(())
}

/// Whatever reached a node's stack for the virtual IP carried the node's proof of passage, and the guard dropped
/// nothing.
fn only_with_proof(farm: &Farm, testimony: &Testimony) -> Result<()> {
    for node in farm.nodes() {
        let table = shell::run(farm.command(node, "nft")?.args(["list", "table", "inet", "farm"]))?;
        let dropped = table.lines().filter(|l| l.contains("drop") && !l.contains("counter packets 0 "));
        ensure!(dropped.count() == 0, "the guard of {node} had something to drop: {table}");
        let passed = testimony.sightings.iter().filter(|s| reaches_stack_of(node, s));
        let sources: BTreeSet<Mac> = passed.map(|s| s.frame.source).collect();
        let mut proven = sources.iter().map(|mac| table.contains(&format!("{mac:?}")));
        ensure!(
            sources.len() == 1 && proven.all(|p| p),
            "{node} got frames from {sources:?}; guard: {table}"
        );
    }
    Ok(())
}

fn reaches_stack_of(node: Place, sighting: &Sighting) -> bool {
    let Sighting { place, side: Side::Machine, heading: Heading::Arriving, frame, .. } = sighting else {
        return false;
    };
    *place == node && frame.destination_address() == Some(FIRST_VIP)
}

/// Frames for the virtual IP that one node sent to another.
fn carried_on(testimony: &Testimony) -> usize {
    let macs: BTreeSet<Mac> = Place::nodes(3).filter_map(|node| node.mac(Network::Lan)).map(Mac).collect();
    let between = testimony.sightings.iter().filter(|s| {
        s.side == Side::Cable && s.heading == Heading::Arriving && matches!(s.place, Place::Node(_))
    });
    between
        .filter(|s| macs.contains(&s.frame.source) && s.frame.destination_address() == Some(FIRST_VIP))
        .count()
}
