//! TCP sockets as the kernel lists them.

use std::collections::BTreeSet;
use std::io::Read;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};

use farm_host::Netlink;
use farm_host::address::add_virtual;
use farm_host::sockets::{SockDiag, Socket, State};
use socket2::{Domain, Protocol, Type};

use crate::namespace::{CABLE, Lab, PATIENCE, PEER_IP, VIP, run};

const PORT: u16 = 8080;
#[test]
fn established_sockets_of_the_service_are_listed() {
    let lab = serving();
    let listener = TcpListener::bind((VIP, PORT)).unwrap();
    let other = TcpListener::bind((VIP, PORT + 1)).unwrap();
    let client = lab.in_peer(|| TcpStream::connect((VIP, PORT)).unwrap());
    let _unrelated = lab.in_peer(|| TcpStream::connect((VIP, PORT + 1)).unwrap());
    let (server, remote) = listener.accept().unwrap();
    assert_eq!(listed(), [socket(remote, State::Established)]);
    drop(server);
    // The client has heard of the close when it reads the end.
    assert_eq!((&client).read(&mut [0]).unwrap(), 0);
    let closing = |s: &Socket| matches!(s.state, State::FinWait1 | State::FinWait2);
    assert_eq!(listed().iter().filter(|s| closing(s)).count(), 1, "{:?}", listed());
    drop((client, other));
}

#[test]
fn a_close_by_the_client_leaves_close_wait() {
    let lab = serving();
    let listener = TcpListener::bind((VIP, PORT)).unwrap();
    let client = lab.in_peer(|| TcpStream::connect((VIP, PORT)).unwrap());
    let (mut server, remote) = listener.accept().unwrap();
    drop(client);
    assert_eq!(server.read(&mut [0]).unwrap(), 0);
    assert_eq!(listed(), [socket(remote, State::CloseWait)]);
}

#[test]
fn a_half_open_handshake_is_listed_as_syn_received() {
    let lab = serving();
    let _listener = TcpListener::bind((VIP, PORT)).unwrap();
    half_open_handshake_is_seen(&lab);
}

#[test]
fn a_half_open_handshake_with_a_dual_stack_listener_is_listed_too() {
    let lab = serving();
    let _listener = TcpListener::bind((Ipv6Addr::UNSPECIFIED, PORT)).unwrap();
    half_open_handshake_is_seen(&lab);
}

#[test]
fn ipv4_connections_of_a_dual_stack_listener_are_ipv4() {
    let lab = serving();
    let listener = TcpListener::bind((Ipv6Addr::UNSPECIFIED, PORT)).unwrap();
    let client = lab.in_peer(|| TcpStream::connect((VIP, PORT)).unwrap());
    let _server = listener.accept().unwrap();
    assert_eq!(listed(), [socket(client.local_addr().unwrap(), State::Established)]);
}

#[test]
fn ipv6_connections_are_listed() {
    let lab = serving();
    let vip: Ipv6Addr = "2001:db8::100".parse().unwrap();
    run(async { add_virtual(&Netlink::open().unwrap(), vip.into()).await.unwrap() });
    let listener = TcpListener::bind((vip, PORT)).unwrap();
    let client = TcpStream::connect((vip, PORT)).unwrap();
    let _server = listener.accept().unwrap();
    let found = list(&[(vip.into(), PORT)]);
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!(found[0].local, SocketAddr::from((vip, PORT)));
    assert_eq!(found[0].remote, client.local_addr().unwrap());
    drop(lab);
}

/// More than one datagram of the kernel's answer, with gaps: nothing is lost between the parts.
#[test]
fn thousands_of_sockets_are_listed_completely() {
    // Both ends are in this process.
    const CONNECTIONS: usize = 3_000;
    raise_file_limit(2 * CONNECTIONS as u64 + 1_000);
    let lab = serving();
    let listener = TcpListener::bind((VIP, PORT)).unwrap();
    let pairs: Vec<(TcpStream, TcpStream)> = (0..CONNECTIONS)
        .map(|_| {
            let client = lab.in_peer(|| TcpStream::connect((VIP, PORT)).unwrap());
            (client, listener.accept().unwrap().0)
        })
        .collect();
    let mut expected: Vec<Socket> =
        pairs.iter().map(|(c, _)| socket(c.local_addr().unwrap(), State::Established)).collect();
    expected.sort();
    assert_eq!(listed(), expected);
}

#[test]
fn without_services_nothing_is_listed() {
    let _lab = serving();
    assert_eq!(list(&[]), []);
    assert_eq!(listed(), []);
}

/// A lab whose node has the virtual IP; the peer reaches it over the cable.
fn serving() -> Lab {
    let lab = Lab::new();
    lab.peer.ip(&format!("route add {VIP}/32 via 192.0.2.1 dev {CABLE}"));
    run(async { add_virtual(&Netlink::open().unwrap(), VIP.into()).await.unwrap() });
    lab
}

fn half_open_handshake_is_seen(lab: &Lab) {
    // Replies go to a hardware address that nobody has: the handshake cannot go on.
    lab.node.ip(&format!("neigh replace {PEER_IP} lladdr 02:00:00:00:00:99 dev {CABLE} nud permanent"));
    let tap = lab.in_peer(ip_tap);
    let client = lab.in_peer(|| connect_without_waiting((VIP, PORT).into()));
    wait_for_syn_ack(&tap);
    let remote = client.local_addr().unwrap().as_socket().unwrap();
    assert_eq!(listed(), [socket(remote, State::SynReceived)]);
}

fn connect_without_waiting(to: SocketAddr) -> socket2::Socket {
    let socket = socket2::Socket::new(Domain::IPV4, Type::STREAM.nonblocking(), None).unwrap();
    let pending = socket.connect(&to.into()).unwrap_err();
    assert_eq!(pending.raw_os_error(), Some(libc::EINPROGRESS));
    socket
}

fn ip_tap() -> socket2::Socket {
    let ip = Protocol::from(i32::from((libc::ETH_P_IP as u16).to_be()));
    let socket = socket2::Socket::new(Domain::PACKET, Type::DGRAM, Some(ip)).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket
}

/// The kernel enters the request socket into its table before it sends the SYN-ACK.
fn wait_for_syn_ack(mut tap: &socket2::Socket) {
    const SYN_ACK: u8 = 0x12;
    let mut packet = [0; 128];
    loop {
        let length = tap.read(&mut packet).expect("no SYN-ACK came");
        let header = usize::from(packet[0] & 0x0f) * 4;
        if length > header + 13 && packet[12..16] == VIP.octets() && packet[header + 13] == SYN_ACK {
            return;
        }
    }
}

fn raise_file_limit(files: u64) {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, soft.max(files), hard.max(files)).unwrap();
}

fn socket(remote: SocketAddr, state: State) -> Socket {
    Socket { local: (VIP, PORT).into(), remote, state }
}

fn listed() -> Vec<Socket> {
    list(&[(Ipv4Addr::into(VIP), PORT)])
}

fn list(services: &[(IpAddr, u16)]) -> Vec<Socket> {
    let services: BTreeSet<_> = services.iter().copied().collect();
    run(async { SockDiag::open().unwrap().tcp(&services).await.unwrap() })
}
