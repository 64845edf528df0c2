//! The first walk of ARCHITECTURE.md: one packet. What `explain` names is who answers, seen on the wire.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr, UdpSocket};

use anyhow::{Context, Result, ensure};
use farm_lab::witness::{
    BootTime, Case, Content, Heading, Kind, Mac, Neighbour, Side, Sighting, Speech, SynStream, Testimony,
    Verdict, Witness, acceptances, judge,
};
use farm_lab::{FIRST_VIP, FIRST_VIP6, Family, Mode, Network, Place, WEB_PORT, shell};
use farm_tests::farm::{Explained, Farm, LIMIT, Service};
use farm_tests::talk::Servers;

/// Clients of each kind that are played.
const CLIENTS: usize = 24;
/// Clients that ask for the hardware address themselves: enough that every node has to answer one.
const ASKERS: usize = 16;
/// Ports of the services beside the web service, by what makes a bucket.
const TCP_BY_ADDRESS: u16 = 81;
const UDP_BY_PORT: u16 = 7000;
const UDP_BY_ADDRESS: u16 = 7001;

/// Who must answer which client of which service.
type Owners = BTreeMap<(SocketAddr, Service), Place>;

#[test]
fn in_directed_mode_a_packet_is_answered_by_whom_explain_names() -> Result<()> {
    directed("packet-d", FIRST_VIP)
}

#[test]
fn in_directed_mode_a_packet_of_ipv6_is_answered_by_whom_explain_names() -> Result<()> {
    directed("packet-d6", FIRST_VIP6)
}

#[test]
fn in_flood_mode_a_packet_is_answered_by_whom_explain_names() -> Result<()> {
    flood("packet-f", FIRST_VIP)
}

#[test]
fn in_flood_mode_a_packet_of_ipv6_is_answered_by_whom_explain_names() -> Result<()> {
    flood("packet-f6", FIRST_VIP6)
}

fn directed(prefix: &str, vip: IpAddr) -> Result<()> {
    let farm = Farm::on(prefix, Mode::Directed, vip)?;
    let seen = Walk { farm: &farm, vip }.go()?;
    ensure!(carried_on(&seen, vip) > 0, "no node sent anything on: the walk was not tried");
    Ok(())
}

fn flood(prefix: &str, vip: IpAddr) -> Result<()> {
    let farm = Farm::on(prefix, Mode::Flood, vip)?;
    let seen = Walk { farm: &farm, vip }.go()?;
    ensure!(carried_on(&seen, vip) == 0, "a node sent on what everybody has");
    let virtual_mac = farm.learnt_mac(vip)?;
    let sources: BTreeSet<Mac> = seen.sightings.iter().map(|s| s.frame.source).collect();
    ensure!(!sources.contains(&virtual_mac), "{virtual_mac:?} was a source: the switch stops flooding");
    Ok(())
}

/// The walk to one virtual IP.
#[derive(Clone, Copy)]
struct Walk<'a> {
    farm: &'a Farm,
    vip: IpAddr,
}

impl Walk<'_> {
    /// Sends every kind of packet from the link and from behind the router, and compares who answers with `explain`.
    fn go(self) -> Result<Testimony> {
        let servers = self.servers()?;
        let epoch = self.farm.status(Place::Node(1))?.epoch;
        let witness = Witness::start(self.farm, &[self.vip])?;
        let mut owners = Owners::new();
        let mut pinged = BTreeMap::new();
        for from in [Place::Client, Place::Remote] {
            let clients = SynStream::clients(from, Family::of(self.vip), CLIENTS);
            for service in [self.tcp(WEB_PORT), self.tcp(TCP_BY_ADDRESS)] {
                owners.extend(self.explained(&clients, service)?);
                self.connect(&witness, from, &clients, service)?;
            }
            for service in [self.udp(UDP_BY_PORT), self.udp(UDP_BY_ADDRESS)] {
                owners.extend(self.explained(&clients, service)?);
                clients.iter().try_for_each(|client| self.send_datagram(from, *client, service))?;
            }
            for client in clients.iter().take(CLIENTS / 3) {
                // An echo request has no ports: its bucket is that of the address.
                pinged.insert(client.ip(), owners[&(*client, self.udp(UDP_BY_ADDRESS))]);
                self.ping(from, client.ip())?;
            }
        }
        let asked = self.resolve()?;
        let testimony = witness.stop()?;
        drop(servers);
        let now = self.farm.status(Place::Node(1))?.epoch;
        ensure!(now == epoch, "void: the owners changed meanwhile (epoch {epoch} to {now})");
        self.answered_by_their_owners(&testimony, &owners, &pinged)?;
        self.resolved_by_one(&testimony, asked)?;
        self.only_with_proof(&testimony)?;
        let virtual_mac = self.farm.virtual_mac(self.vip)?;
        let verdict = judge(&testimony, &Case { vips: vec![self.vip], virtual_mac, ..Case::default() });
        ensure!(verdict == Verdict::Upheld, "{verdict:?}");
        Ok(testimony)
    }

    fn tcp(self, port: u16) -> Service {
        Service::tcp(self.vip, port)
    }

    fn udp(self, port: u16) -> Service {
        Service::udp(self.vip, port)
    }

    /// A TCP and a UDP service for each criterion, and who serves them.
    fn servers(self) -> Result<[Servers; 3]> {
        let (tcp, by_port, by_address) =
            (self.tcp(TCP_BY_ADDRESS), self.udp(UDP_BY_PORT), self.udp(UDP_BY_ADDRESS));
        for (service, criterion) in
            [(tcp, "source-address"), (by_port, "source-port"), (by_address, "source-address")]
        {
            self.farm.add_service(service, criterion)?;
        }
        self.farm.await_applied()?;
        Ok([
            Servers::echo_tcp(self.farm, tcp.at)?,
            Servers::echo_udp(self.farm, by_port.at)?,
            Servers::echo_udp(self.farm, by_address.at)?,
        ])
    }

    /// Asks the nodes in turn for the owner of each client; on the owner, program and pure function must accept.
    fn explained(self, clients: &[SocketAddr], service: Service) -> Result<Owners> {
        let names = self.farm.names(Place::Node(1))?;
        let mut owners = Owners::new();
        for (client, node) in clients.iter().zip(self.farm.nodes().collect::<Vec<_>>().into_iter().cycle()) {
            let said = self.farm.explain(node, *client, service)?;
            let owner = *names.get(&said.owner).with_context(|| format!("{said:?}"))?;
            self.check_explained(node, owner, &said)?;
            let own = self.farm.explain(owner, *client, service)?;
            ensure!(
                own.bucket == said.bucket && own.owner == said.owner,
                "{node}: {said:?}, {owner}: {own:?}"
            );
            self.check_explained(owner, owner, &own)?;
            owners.insert((*client, service), owner);
        }
        let serving: BTreeSet<Place> = owners.values().copied().collect();
        ensure!(serving.len() == 3, "void: {} clients fall to {serving:?} only", clients.len());
        Ok(owners)
    }

    fn check_explained(self, asked: Place, owner: Place, said: &Explained) -> Result<()> {
        let expected = match (asked == owner, self.farm.spec().mode) {
            (true, _) => "accept_owner",
            (false, Mode::Directed) => "forward_owner",
            (false, Mode::Flood) => "not_owner",
        };
        let agreed = said.agree && said.decided == expected && said.program == expected;
        ensure!(agreed, "{asked}, asked for a bucket of {owner}, says {said:?}");
        Ok(())
    }

    /// A SYN of each client, until each was answered.
    fn connect(self, witness: &Witness, from: Place, clients: &[SocketAddr], service: Service) -> Result<()> {
        let stream = SynStream { from, sources: clients.to_vec(), service: service.at, rate: 200 };
        let running = stream.start(self.farm)?;
        let answered = || {
            let all = acceptances(&witness.so_far(), &[self.vip]);
            let of: BTreeSet<SocketAddr> =
                all.iter().filter(|a| a.service == service.at).map(|a| a.client).collect();
            Ok(clients.iter().all(|client| of.contains(client)).then_some(()))
        };
        let reached =
            shell::await_value(&format!("{service} answers everybody from {from}"), LIMIT, answered);
        running.stop()?;
        reached
    }

    /// A datagram there and back.
    fn send_datagram(self, from: Place, client: SocketAddr, service: Service) -> Result<()> {
        let socket =
            self.farm.namespace(from).run(|| UdpSocket::bind(client).context("a client's address"))?;
        socket.set_read_timeout(Some(LIMIT))?;
        socket.connect(service.at)?;
        socket.send(b"question")?;
        let mut answer = [0; 16];
        let length = socket.recv(&mut answer).with_context(|| format!("{client} to {service}"))?;
        ensure!(&answer[..length] == b"question", "{client} got other data back");
        Ok(())
    }

    fn ping(self, from: Place, source: IpAddr) -> Result<()> {
        let (source, vip) = (source.to_string(), self.vip.to_string());
        let args = ["-n", "-c", "1", "-W", "10", "-I", &source, &vip];
        shell::run(self.farm.command(from, "ping")?.args(args)).map(drop)
    }

    /// Makes clients on the link, and the router, ask for the hardware address of the virtual IP; since when.
    fn resolve(self) -> Result<BootTime> {
        let before = BootTime::now();
        for source in Place::Client.crowd(Family::of(self.vip)).take(ASKERS) {
            self.forget(Place::Client)?;
            self.ping(Place::Client, source)?;
        }
        self.forget(Place::Router)?;
        let behind = Place::Remote.crowd(Family::of(self.vip)).next().context("a crowd")?;
        self.ping(Place::Remote, behind)?;
        Ok(before)
    }

    fn forget(self, asker: Place) -> Result<()> {
        let vip = self.vip.to_string();
        shell::run(self.farm.command(asker, "ip")?.args(["neigh", "flush", "to", &vip])).map(drop)
    }

    fn answered_by_their_owners(
        self,
        testimony: &Testimony,
        owners: &Owners,
        pinged: &BTreeMap<IpAddr, Place>,
    ) -> Result<()> {
        let mut heard: BTreeSet<(SocketAddr, SocketAddr, Kind)> = BTreeSet::new();
        for a in acceptances(&testimony.sightings, &[self.vip]) {
            let expected = match a.kind {
                // The clients of `resolve` are not all among those that were explained.
                Kind::Icmp => pinged.get(&a.client.ip()).copied(),
                Kind::Datagram => {
                    owners.get(&(a.client, Service { at: a.service, protocol: "udp" })).copied()
                }
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
        for client in pinged.keys() {
            let echo = (SocketAddr::new(*client, 0), SocketAddr::new(self.vip, 0), Kind::Icmp);
            ensure!(heard.contains(&echo), "nobody answered the echo request of {client}");
        }
        Ok(())
    }

    /// Each question for the virtual IP since `asked` got one answer, from the owner of the asker's bucket.
    fn resolved_by_one(self, testimony: &Testimony, asked: BootTime) -> Result<()> {
        let leaving = testimony
            .sightings
            .iter()
            .filter(|s| s.at >= asked && s.side == Side::Cable && s.heading == Heading::Leaving);
        let (mut questions, mut answers) =
            (BTreeMap::<IpAddr, usize>::new(), BTreeMap::<IpAddr, Vec<Place>>::new());
        for s in leaving {
            let Content::Neighbour(said) = s.frame.content else { continue };
            match (s.place, said) {
                (_, Neighbour { about, .. }) if about != self.vip => {}
                (Place::Client | Place::Router, Neighbour { speech: Speech::Question, sender, .. }) => {
                    *questions.entry(sender).or_default() += 1;
                }
                (node, Neighbour { speech: Speech::Answer, to, .. }) => {
                    answers.entry(to).or_default().push(node);
                }
                _ => {}
            }
        }
        ensure!(questions.len() > ASKERS, "void: only {questions:?} asked");
        for (asker, count) in &questions {
            let owner =
                self.farm.owner(Place::Node(2), SocketAddr::new(*asker, 0), self.udp(UDP_BY_ADDRESS))?;
            let by = answers.remove(asker).unwrap_or_default();
            ensure!(
                by == vec![owner; *count],
                "{owner} owns {asker}, who asked {count} times and was answered by {by:?}"
            );
        }
        ensure!(answers.is_empty(), "nobody asked for {answers:?}");
        Ok(())
    }

    /// Whatever reached a node's stack for the virtual IP carried the node's proof of passage, and the guard dropped
    /// nothing.
    fn only_with_proof(self, testimony: &Testimony) -> Result<()> {
        for node in self.farm.nodes() {
            let table = shell::run(self.farm.command(node, "nft")?.args(["list", "table", "inet", "farm"]))?;
            let dropped = table.lines().filter(|l| l.contains("drop") && !l.contains("counter packets 0 "));
            ensure!(dropped.count() == 0, "the guard of {node} had something to drop: {table}");
            let passed = testimony.sightings.iter().filter(|s| self.reaches_stack_of(node, s));
            let sources: BTreeSet<Mac> = passed.map(|s| s.frame.source).collect();
            let mut proven = sources.iter().map(|mac| table.contains(&format!("{mac:?}")));
            ensure!(
                sources.len() == 1 && proven.all(|p| p),
                "{node} got frames from {sources:?}; guard: {table}"
            );
        }
        Ok(())
    }

    fn reaches_stack_of(self, node: Place, sighting: &Sighting) -> bool {
        let Sighting { place, side: Side::Machine, heading: Heading::Arriving, frame, .. } = sighting else {
            return false;
        };
        *place == node && frame.destination_address() == Some(self.vip)
    }
}

fn kind_only(kind: Kind) -> Kind {
    match kind {
        Kind::Opened(_) => Kind::Opened(0),
        Kind::Refused | Kind::Datagram | Kind::Icmp | Kind::Established(_) => kind,
    }
}

/// Frames for the virtual IP that one node sent to another.
fn carried_on(testimony: &Testimony, vip: IpAddr) -> usize {
    let macs: BTreeSet<Mac> = Place::nodes(3).filter_map(|node| node.mac(Network::Lan)).map(Mac).collect();
    let between = testimony.sightings.iter().filter(|s| {
        s.side == Side::Cable && s.heading == Heading::Arriving && matches!(s.place, Place::Node(_))
    });
    between.filter(|s| macs.contains(&s.frame.source) && s.frame.destination_address() == Some(vip)).count()
}
