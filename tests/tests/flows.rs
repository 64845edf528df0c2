//! Flows that no TCP socket of the node shows stay where they are while their bucket moves.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};

use anyhow::{Context, Result, ensure};
use farm_lab::{FIRST_VIP, FIRST_VIP6, Family, Mode, Place, Status, WEB_MODULE, shell};
use farm_tests::chat::{Chat, Switchboards};
use farm_tests::farm::{Event, Farm, LIMIT, Service};
use farm_tests::inner::Inner;
use farm_tests::talk::{Servers, Talk, Talking};

const ONE: Place = Place::Node(1);
const TWO: Place = Place::Node(2);
const THREE: Place = Place::Node(3);
/// The service with a socket per client.
const CHAT: u16 = 7002;
/// The service in namespaces behind the nodes.
const PUBLISHED: u16 = 8443;
/// So many that some fall into the buckets that move.
const CHATS: u16 = 60;
const FIRST_PORT: u16 = 21_000;
/// Length of a datagram that an Ethernet of 1500 bytes carries in three frames.
const THREE_FRAMES: usize = 4_000;
/// Rounds of all chats while a change is open.
const ROUNDS: usize = 30;

#[test]
fn connected_datagram_sockets_keep_their_clients_in_a_change() -> Result<()> {
    chat_through_a_change("flows-d", Mode::Directed, FIRST_VIP)
}

#[test]
fn connected_datagram_sockets_keep_their_clients_in_a_change_in_flood_mode() -> Result<()> {
    chat_through_a_change("flows-f", Mode::Flood, FIRST_VIP)
}

#[test]
fn connected_datagram_sockets_keep_their_clients_in_a_change_of_ipv6() -> Result<()> {
    chat_through_a_change("flows-d6", Mode::Directed, FIRST_VIP6)
}

fn chat_through_a_change(prefix: &str, mode: Mode, vip: IpAddr) -> Result<()> {
    let farm = Farm::on(prefix, mode, vip)?;
    let service = Service::udp(vip, CHAT);
    farm.add_service(service, "source-port")?;
    farm.await_applied()?;
    let _boards = Switchboards::start(&farm, service.at)?;
    let open = |client| Chat::open(&farm, Place::Client, client, service.at);
    let mut chats: Vec<Chat> = clients(vip).take(usize::from(CHATS)).map(open).collect::<Result<_>>()?;
    farm.farmctl(TWO, &["module", "weight", WEB_MODULE, "node2", "0"])?;
    let settled = |s: &Status| s.module(WEB_MODULE).is_some_and(|m| m.open_changes == 0);
    farm.await_status(ONE, "a change is open", LIMIT, |s| !settled(s))?;
    for _ in 0..ROUNDS {
        chats.iter_mut().try_for_each(Chat::round)?;
    }
    let held = chats.iter().filter(|chat| chat.node == TWO).count();
    ensure!(held > 0, "void: node2 held no client");
    ensure!(!settled(&farm.status(ONE)?), "void: the change did not wait for {held} sockets");
    for chat in chats {
        chat.close()?;
    }
    farm.await_status(ONE, "the change is settled", LIMIT, settled)?;
    farm.await_applied()?;
    for client in clients(vip).skip(usize::from(CHATS)).take(4) {
        let chat = open(client)?;
        ensure!([ONE, THREE].contains(&chat.node), "{} holds a new client", chat.node);
        chat.close()?;
    }
    Ok(())
}

#[test]
fn fragments_reach_the_node_of_their_ports() -> Result<()> {
    fragmented("flows-frag-d", Mode::Directed, FIRST_VIP)
}

#[test]
fn fragments_reach_the_node_of_their_ports_in_flood_mode() -> Result<()> {
    fragmented("flows-frag-f", Mode::Flood, FIRST_VIP)
}

#[test]
fn fragments_of_ipv6_reach_the_node_of_their_ports() -> Result<()> {
    fragmented("flows-frag-d6", Mode::Directed, FIRST_VIP6)
}

/// Datagrams that need three frames, of clients with one address and many ports.
fn fragmented(prefix: &str, mode: Mode, vip: IpAddr) -> Result<()> {
    let farm = Farm::on(prefix, mode, vip)?;
    let service = Service::udp(vip, CHAT);
    farm.add_service(service, "source-port")?;
    farm.await_applied()?;
    let _boards = Switchboards::start(&farm, service.at)?;
    let first = clients(vip).next().context("a crowd")?;
    let mut met = BTreeSet::new();
    for port in FIRST_PORT..FIRST_PORT + CHATS {
        let client = SocketAddr::new(first.ip(), port);
        let mut chat = Chat::of_length(&farm, Place::Client, client, service.at, THREE_FRAMES)?;
        let owner = farm.owner(ONE, client, service)?;
        ensure!(chat.node == owner, "{client} belongs to {owner} and is answered by {}", chat.node);
        chat.round()?;
        chat.close()?;
        met.insert(owner);
    }
    ensure!(met.len() == 3, "void: all clients belong to {met:?}");
    Ok(())
}

#[test]
fn connections_to_a_namespace_behind_the_node_survive_a_change() -> Result<()> {
    published("flows-dnat-d", Mode::Directed, FIRST_VIP)
}

#[test]
fn connections_to_a_namespace_behind_the_node_survive_a_change_in_flood_mode() -> Result<()> {
    published("flows-dnat-f", Mode::Flood, FIRST_VIP)
}

#[test]
fn connections_to_a_namespace_behind_the_node_survive_a_change_of_ipv6() -> Result<()> {
    published("flows-dnat-6", Mode::Directed, FIRST_VIP6)
}

/// No socket of a node shows these connections.
fn published(prefix: &str, mode: Mode, vip: IpAddr) -> Result<()> {
    let farm = Farm::up(prefix, mode)?;
    let service = Service::tcp(vip, PUBLISHED);
    farm.add_service(service, "source-port")?;
    farm.await_applied()?;
    let inner = Inner::behind(&farm, service.at)?;
    let _servers = Servers::echo_tcp_in(inner.namespaces(), service.at)?;
    for node in farm.nodes() {
        let noticed =
            |event: &Event| event.kind == "sockets_elsewhere" && event.resource == service.to_string();
        shell::await_value(&format!("{node} notices that nobody listens"), LIMIT, || {
            Ok(farm.events(node)?.iter().any(noticed).then_some(()))
        })?;
    }
    let open = |client| Talk::open(&farm, Place::Client, client, service.at);
    let talks: Vec<Talk> = clients(vip).take(usize::from(CHATS)).map(open).collect::<Result<_>>()?;
    let talking = Talking::start(talks);
    talking.await_rounds(20)?;
    farm.farmctl(TWO, &["module", "weight", WEB_MODULE, "node2", "0"])?;
    let drains = |s: &Status| s.module(WEB_MODULE).is_some_and(|m| m.open_changes > 0);
    farm.await_status(ONE, "a change is open", LIMIT, drains)?;
    talking.await_rounds(200)?;
    ensure!(drains(&farm.status(ONE)?), "void: the change did not wait for the connections");
    let talks = talking.stop()?;
    let held = talks.iter().filter(|talk| talk.node == TWO).count();
    ensure!(held > 0, "void: node2 held no connection");
    drop(talks);
    farm.await_status(ONE, "the change is settled", LIMIT, |s| !drains(s))?;
    Ok(())
}

/// The application takes no new connection, as one that is about to end; those that it has go on.
#[test]
fn connections_outlive_their_listener_in_a_change() -> Result<()> {
    let farm = Farm::up("flows-deaf", Mode::Directed)?;
    let service = Service::tcp(FIRST_VIP, PUBLISHED);
    farm.add_service(service, "source-port")?;
    farm.await_applied()?;
    let servers = Servers::echo_tcp(&farm, service.at)?;
    let open = |client| Talk::open(&farm, Place::Client, client, service.at);
    let talks: Vec<Talk> = clients(FIRST_VIP).take(usize::from(CHATS)).map(open).collect::<Result<_>>()?;
    let talking = Talking::start(talks);
    talking.await_rounds(20)?;
    drop(servers);
    farm.farmctl(TWO, &["module", "weight", WEB_MODULE, "node2", "0"])?;
    let drains = |s: &Status| s.module(WEB_MODULE).is_some_and(|m| m.open_changes > 0);
    farm.await_status(ONE, "a change is open", LIMIT, drains)?;
    talking.await_rounds(200)?;
    ensure!(drains(&farm.status(ONE)?), "void: the change did not wait for the connections");
    let talks = talking.stop()?;
    let held = talks.iter().filter(|talk| talk.node == TWO).count();
    ensure!(held > 0, "void: node2 held no connection");
    drop(talks);
    farm.await_status(ONE, "the change is settled", LIMIT, |s| !drains(s))?;
    Ok(())
}

/// The first [`CHATS`], then more.
fn clients(vip: IpAddr) -> impl Iterator<Item = SocketAddr> {
    let crowd: Vec<IpAddr> = Place::Client.crowd(Family::of(vip)).collect();
    (0..CHATS + 8).map(move |i| SocketAddr::new(crowd[usize::from(i) % crowd.len()], FIRST_PORT + i))
}
