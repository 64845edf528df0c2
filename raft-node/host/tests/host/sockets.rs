//! Sockets as the kernel lists them.

use std::collections::BTreeSet;
use std::io::Read;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};

use farm_host::Netlink;
use farm_host::address::add_virtual;
use farm_host::sockets::{SockDiag, Socket, State};
use socket2::{Domain, Type};

use crate::namespace::{CABLE, Lab, NODE_IP, NODE_IP6, PEER_IP, PEER_IP6, VIP, VIP6, run};
use crate::tap::Frames;

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
    // A socket that no process has any more the kernel would only remember once its close is acknowledged.
    server.shutdown(Shutdown::Write).unwrap();
    // The client has heard of the close when it reads the end.
    assert_eq!((&client).read(&mut [0]).unwrap(), 0);
    let closing = |s: &Socket| matches!(s.state, State::FinWait1 | State::FinWait2);
    assert_eq!(listed().iter().filter(|s| closing(s)).count(), 1, "{:?}", listed());
    drop((client, server, other));
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
    for vip in [IpAddr::from(VIP), VIP6.into()] {
        let lab = serving();
        let _listener = TcpListener::bind((vip, PORT)).unwrap();
        half_open_handshake_is_seen(&lab, vip);
    }
}

#[test]
fn a_half_open_handshake_with_a_dual_stack_listener_is_listed_too() {
    for vip in [IpAddr::from(VIP), VIP6.into()] {
        let lab = serving();
        let _listener = TcpListener::bind((Ipv6Addr::UNSPECIFIED, PORT)).unwrap();
        half_open_handshake_is_seen(&lab, vip);
    }
}

/// A dual-stack listener's connections of either family, and those of a listener on the mapped
/// address, are IPv6 sockets; each is found under the virtual IP that the client knows.
#[test]
fn connections_of_ipv6_sockets_are_of_the_family_of_their_clients() {
    let any = Ipv6Addr::UNSPECIFIED;
    for (bound, vip) in [(any, IpAddr::from(VIP)), (any, VIP6.into()), (VIP.to_ipv6_mapped(), VIP.into())] {
        let lab = serving();
        let listener = TcpListener::bind((bound, PORT)).unwrap();
        let client = lab.in_peer(|| TcpStream::connect((vip, PORT)).unwrap());
        let _server = listener.accept().unwrap();
        let remote = client.local_addr().unwrap();
        let expected = Socket { local: (vip, PORT).into(), remote, state: State::Established };
        assert_eq!(list(&[(VIP.into(), PORT), (VIP6.into(), PORT)]), [expected], "bound to {bound}");
    }
}

#[test]
fn ipv6_connections_are_listed_in_every_state() {
    let lab = serving();
    let listener = TcpListener::bind((VIP6, PORT)).unwrap();
    let connect = || {
        let client = lab.in_peer(|| TcpStream::connect((VIP6, PORT)).unwrap());
        (client, listener.accept().unwrap())
    };
    let (open, (_server, remote)) = connect();
    let (closed, (mut half, half_remote)) = connect();
    drop(closed);
    assert_eq!(half.read(&mut [0]).unwrap(), 0);
    let of = |remote, state| Socket { local: (VIP6, PORT).into(), remote, state };
    let mut expected = [of(remote, State::Established), of(half_remote, State::CloseWait)];
    expected.sort();
    assert_eq!(list(&[(VIP6.into(), PORT)]), expected);
    assert_eq!(listed(), [], "the service of the other family is another one");
    drop(open);
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
fn only_connected_datagram_sockets_are_listed() {
    let any = IpAddr::from(Ipv6Addr::UNSPECIFIED);
    let (v4, v6) = (IpAddr::from(VIP), IpAddr::from(VIP6));
    for (bound, vip) in [(v4, v4), (v6, v6), (any, v4), (any, v6)] {
        let lab = serving();
        let server = UdpSocket::bind((bound, PORT)).unwrap();
        let from = if vip.is_ipv4() { IpAddr::from(PEER_IP) } else { PEER_IP6.into() };
        let client = lab.in_peer(|| UdpSocket::bind((from, 0)).unwrap());
        client.send_to(b"hello", (vip, PORT)).unwrap();
        let (_, remote) = server.recv_from(&mut [0; 8]).unwrap();
        assert_eq!(list_udp(vip), []);
        server.connect(remote).unwrap();
        let remote = client.local_addr().unwrap();
        let expected = Socket { local: (vip, PORT).into(), remote, state: State::Established };
        // A socket that is bound to no address takes that of its route when it is connected.
        let local = server.local_addr().unwrap().ip().to_canonical();
        assert_eq!(list_udp(local), [Socket { local: (local, PORT).into(), ..expected }]);
        assert_eq!(list(&[(local, PORT)]), [], "no TCP");
    }
}

#[test]
fn listeners_and_receivers_are_found_by_port() {
    let _lab = serving();
    let any = IpAddr::from(Ipv6Addr::UNSPECIFIED);
    let bound = |ports: [u16; 2]| {
        run(async {
            let (mut diag, ports) = (SockDiag::open().unwrap(), ports.into());
            (diag.listeners(&ports).await.unwrap(), diag.receivers(&ports).await.unwrap())
        })
    };
    let _others = (TcpListener::bind((VIP, PORT + 2)).unwrap(), UdpSocket::bind((VIP, PORT + 2)).unwrap());
    assert_eq!(bound([PORT, PORT + 1]), ([].into(), [].into()));
    let _tcp = (TcpListener::bind((VIP, PORT)).unwrap(), TcpListener::bind((any, PORT + 1)).unwrap());
    let _udp = UdpSocket::bind((VIP6, PORT)).unwrap();
    let listeners = [SocketAddr::from((VIP, PORT)), (any, PORT + 1).into()];
    assert_eq!(bound([PORT, PORT + 1]), (listeners.into(), [(VIP6, PORT).into()].into()));
}

#[test]
fn without_services_nothing_is_listed() {
    let _lab = serving();
    assert_eq!(list(&[]), []);
    assert_eq!(listed(), []);
}

/// A lab whose node has the virtual IPs; the peer reaches them over the cable.
fn serving() -> Lab {
    let lab = Lab::dual();
    lab.peer.ip(&format!("route add {VIP}/32 via 192.0.2.1 dev {CABLE}"));
    lab.peer.ip(&format!("route add {VIP6}/128 via 2001:db8::1 dev {CABLE}"));
    run(async {
        let netlink = Netlink::open().unwrap();
        for vip in [IpAddr::from(VIP), VIP6.into()] {
            add_virtual(&netlink, vip).await.unwrap();
        }
    });
    lab
}

fn half_open_handshake_is_seen(lab: &Lab, vip: IpAddr) {
    let (ethertype, peer, gateway) = match vip {
        IpAddr::V4(_) => (libc::ETH_P_IP, IpAddr::from(PEER_IP), IpAddr::from(NODE_IP)),
        IpAddr::V6(_) => (libc::ETH_P_IPV6, PEER_IP6.into(), NODE_IP6.into()),
    };
    lab.peer.ip(&format!("neigh replace {gateway} lladdr 02:00:00:00:00:01 dev {CABLE} nud permanent"));
    // Replies go to a hardware address that nobody has: the handshake cannot go on.
    lab.node.ip(&format!("neigh replace {peer} lladdr 02:00:00:00:00:99 dev {CABLE} nud permanent"));
    let frames = lab.in_peer(|| Frames::open(ethertype));
    let client = lab.in_peer(|| connect_without_waiting((vip, PORT).into()));
    wait_for_syn_ack(&frames, vip);
    let remote = client.local_addr().unwrap().as_socket().unwrap();
    let expected = Socket { local: (vip, PORT).into(), remote, state: State::SynReceived };
    assert_eq!(list(&[(vip, PORT)]), [expected]);
}

fn connect_without_waiting(to: SocketAddr) -> socket2::Socket {
    let socket = socket2::Socket::new(Domain::for_address(to), Type::STREAM.nonblocking(), None).unwrap();
    let pending = socket.connect(&to.into()).unwrap_err();
    assert_eq!(pending.raw_os_error(), Some(libc::EINPROGRESS));
    socket
}

/// The kernel enters the request socket into its table before it sends the SYN-ACK.
fn wait_for_syn_ack(frames: &Frames, vip: IpAddr) {
    const SYN_ACK: u8 = 0x12;
    loop {
        let frame = frames.next();
        let packet = &frame[14..];
        let (source, header) = match vip {
            IpAddr::V4(ip) => (packet[12..16] == ip.octets(), usize::from(packet[0] & 0x0f) * 4),
            IpAddr::V6(ip) => (packet[8..24] == ip.octets(), 40),
        };
        if source && packet.get(header + 13) == Some(&SYN_ACK) {
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

fn list_udp(vip: IpAddr) -> Vec<Socket> {
    run(async { SockDiag::open().unwrap().udp(&[(vip, PORT)].into()).await.unwrap() })
}

fn list(services: &[(IpAddr, u16)]) -> Vec<Socket> {
    let services: BTreeSet<_> = services.iter().copied().collect();
    run(async { SockDiag::open().unwrap().tcp(&services).await.unwrap() })
}
