//! An open change against real sockets: whoever holds the flow accepts it.

mod program_support;

use std::io::Read;
use std::net::{IpAddr, Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::Duration;

use farm_common::verdict::{Mode, Phase, Reason};
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrStorage, bind, connect, recv,
    setsockopt, socket, sockopt,
};

use program_support::{
    CLIENT, CLIENT6, Kernel, VIP, VIP6, datagram, in_namespace, node_mac, port, segment, segment6, shell,
    table,
};

const SYN: u8 = 0x02;
const ACK: u8 = 0x10;
/// This node is P, in Move: what it does not hold goes to node 2.
const ME: u8 = 1;

/// The two ends in one family, and how it writes a segment.
#[derive(Clone, Copy)]
struct Family {
    client: IpAddr,
    vip: IpAddr,
    segment: fn([u8; 6], u16, u8, u32, u32) -> Vec<u8>,
    /// Where TCP begins in a frame without options.
    tcp: usize,
}

const V4: Family = Family { client: IpAddr::V4(CLIENT), vip: IpAddr::V4(VIP), segment, tcp: 34 };
const V6: Family = Family { client: IpAddr::V6(CLIENT6), vip: IpAddr::V6(VIP6), segment: segment6, tcp: 54 };

/// In a namespace for each family.
fn in_both(work: impl Fn(Family) + Sync) {
    for family in [V4, V6] {
        in_namespace(|| work(family));
    }
}

fn leaving() -> Kernel {
    let mut kernel = Kernel::load(port(ME));
    kernel.publish(&table(ME, Mode::Directed, Phase::Move, ME, 2));
    kernel
}

fn action(kernel: &Kernel, family: Family, port: u16, flags: u8) -> &'static str {
    kernel.run(&(family.segment)(node_mac(ME), port, flags, 1, 1)).action
}

/// A client socket, and its port.
fn client(family: Family) -> (OwnedFd, u16) {
    let inet = if family.client.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    let fd = socket(inet, SockType::Stream, SockFlag::SOCK_NONBLOCK, None).unwrap();
    bind(fd.as_raw_fd(), &SockaddrStorage::from(SocketAddr::new(family.client, 0))).unwrap();
    let name: SockaddrStorage = nix::sys::socket::getsockname(fd.as_raw_fd()).unwrap();
    let port = name.as_sockaddr_in().map(|n| n.port());
    let port = port.or_else(|| name.as_sockaddr_in6().map(|n| n.port())).unwrap();
    (fd, port)
}

/// Starts a handshake without waiting for its end.
fn start(family: Family, fd: &OwnedFd) {
    let target = SockaddrStorage::from(SocketAddr::new(family.vip, 80));
    assert_eq!(connect(fd.as_raw_fd(), &target), Err(nix::Error::EINPROGRESS));
}

/// On `lo` a handshake is over when `connect` returns.
fn established(family: Family) -> (TcpStream, TcpStream, u16, TcpListener) {
    let listener = TcpListener::bind((family.vip, 80)).unwrap();
    let (fd, port) = client(family);
    start(family, &fd);
    let (server, peer) = listener.accept().unwrap();
    assert_eq!(peer, SocketAddr::new(family.client, port));
    let near = TcpStream::from(fd);
    near.set_nonblocking(false).unwrap();
    (near, server, port, listener)
}

#[test]
fn an_established_flow_stays_also_for_its_syn_and_its_errors() {
    in_both(|family| {
        let kernel = leaving();
        let (_near, _server, port, _listener) = established(family);
        assert_eq!(action(&kernel, family, port, ACK), "pass");
        assert_eq!(action(&kernel, family, port, SYN), "pass");
        assert_eq!(kernel.run(&too_big(family, port)).action, "pass");
        assert!(kernel.counters().contains(&(Reason::AcceptSocket, 3)));
        // Another port: only the listener is there.
        assert_eq!(action(&kernel, family, port ^ 1, ACK), "tx");
        assert_eq!(action(&kernel, family, port ^ 1, SYN), "tx");
        assert_eq!(kernel.run(&too_big(family, port ^ 1)).action, "tx");
    });
}

/// Without a listener the service counts as one whose sockets are elsewhere, and its flows are remembered: those of before
/// are not, and their sockets are here.
#[test]
fn an_established_flow_stays_when_its_listener_closes() {
    in_both(|family| {
        let mut kernel = leaving();
        let (_near, _server, held, listener) = established(family);
        drop(listener);
        kernel.remember(6, 80, port(ME));
        assert_eq!([ACK, SYN].map(|flags| action(&kernel, family, held, flags)), ["pass"; 2]);
        // Remembered by now, and still the same flow.
        assert_eq!([ACK, ACK, SYN].map(|flags| action(&kernel, family, held, flags)), ["pass"; 3]);
        assert_eq!(action(&kernel, family, held ^ 1, ACK), "tx");
    });
}

/// "Fragmentation needed" or "packet too big" by a router, about a segment of the flow.
fn too_big(family: Family, port: u16) -> Vec<u8> {
    quoting(family, 6, 80, port)
}

/// The same about a packet of this protocol, which the service sent.
fn quoting(family: Family, quoted: u8, service: u16, port: u16) -> Vec<u8> {
    let mut frame = (family.segment)(node_mac(ME), port, ACK, 1, 1);
    let quote = [service.to_be_bytes(), port.to_be_bytes(), [0, 0], [0, 0]].concat();
    match family.vip {
        IpAddr::V4(_) => {
            let (router, protocol) = ([10, 9, 9, 9], 1);
            frame[23] = protocol;
            frame[26..30].copy_from_slice(&router);
            frame.truncate(34);
            frame.extend([3, 4, 0, 0, 0, 0, 5, 0, 0x45, 0, 0, 40, 0, 0, 0x40, 0, 64, quoted, 0, 0]);
            frame.extend([VIP.octets(), CLIENT.octets()].concat());
        }
        IpAddr::V6(_) => {
            let protocol = 58;
            frame[20] = protocol;
            // Some router of the same network.
            frame[37] = 0xfe;
            frame.truncate(54);
            frame.extend([2, 0, 0, 0, 0, 0, 5, 0, 0x60, 0, 0, 0, 0, 20, quoted, 64]);
            frame.extend([VIP6.octets(), CLIENT6.octets()].concat());
        }
    }
    frame.extend(quote);
    let length = (frame.len() - 14) as u8;
    match family.vip {
        IpAddr::V4(_) => frame[17] = length,
        IpAddr::V6(_) => frame[19] = length - 40,
    }
    frame
}

/// A client's port with a socket that is connected to it, and a server that is not; bound as `bound` says.
fn connected(family: Family, bound: IpAddr) -> (u16, [UdpSocket; 3]) {
    let near = UdpSocket::bind((family.client, 0)).unwrap();
    let port = near.local_addr().unwrap().port();
    let reuse = || {
        let inet = if bound.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
        let fd = socket(inet, SockType::Datagram, SockFlag::empty(), None).unwrap();
        setsockopt(&fd, sockopt::ReuseAddr, &true).unwrap();
        bind(fd.as_raw_fd(), &SockaddrStorage::from(SocketAddr::new(bound, 53))).unwrap();
        UdpSocket::from(fd)
    };
    let (server, connected) = (reuse(), reuse());
    let client = match (family.client, bound) {
        (IpAddr::V4(client), IpAddr::V6(_)) => client.to_ipv6_mapped().into(),
        (client, _) => client,
    };
    connected.connect((client, port)).unwrap();
    (port, [near, server, connected])
}

#[test]
fn a_connected_datagram_socket_keeps_its_client_and_the_errors_about_it() {
    in_both(|family| {
        // An IPv6 socket, too, holds flows of IPv4.
        let mapped = match family.vip {
            IpAddr::V4(vip) => vip.to_ipv6_mapped().into(),
            vip @ IpAddr::V6(_) => vip,
        };
        for bound in [family.vip, mapped] {
            let kernel = leaving();
            let (port, sockets) = connected(family, bound);
            let taken = |port| {
                let error = quoting(family, 17, 53, port);
                [datagram(family.vip, node_mac(ME), port), error].map(|frame| kernel.run(&frame).action)
            };
            assert_eq!(taken(port), ["pass"; 2], "bound to {bound}");
            assert!(kernel.counters().contains(&(Reason::AcceptSocket, 2)));
            // Another port: the server's socket is not connected.
            assert_eq!(taken(port ^ 1), ["tx"; 2]);
            drop(sockets);
            assert_eq!(taken(port), ["tx"; 2], "nobody holds it any more");
        }
    });
}

#[test]
fn datagrams_are_the_new_owner_s_from_activate_on() {
    in_both(|family| {
        let (port, _sockets) = connected(family, family.vip);
        let frame = datagram(family.vip, node_mac(ME), port);
        let run = |phase, previous, current| {
            let mut kernel = Kernel::load(self::port(ME));
            kernel.publish(&table(ME, Mode::Directed, phase, previous, current));
            kernel.run(&frame).action
        };
        assert_eq!(run(Phase::Activate, ME, 2), "tx");
        assert_eq!(run(Phase::MoveClosed, ME, 2), "pass");
        assert_eq!(run(Phase::MoveClosed, 2, ME), "drop", "two may have one");
        assert_eq!(run(Phase::MoveClosed, 2, 3), "drop");
        assert_eq!(run(Phase::Activate, 2, ME), "pass");
        // Left from when the client was this node's own: the previous owner is asked.
        for phase in [Phase::Prepare, Phase::Move] {
            assert_eq!(run(phase, 2, ME), "tx", "{phase:?}");
        }
    });
}

#[test]
fn a_closed_connection_keeps_its_segments_but_not_a_new_syn() {
    in_both(|family| {
        let kernel = leaving();
        let (mut near, server, port, _listener) = established(family);
        // Who closes first keeps TIME_WAIT.
        server.shutdown(Shutdown::Write).unwrap();
        assert_eq!(near.read(&mut [0; 1]).unwrap(), 0);
        drop(near);
        drop(server);
        assert_eq!(action(&kernel, family, port, ACK), "pass");
        assert_eq!(action(&kernel, family, port, SYN), "tx", "a new connection, not this node's");
    });
}

#[test]
fn a_request_socket_keeps_its_syn() {
    in_both(|family| {
        let kernel = leaving();
        let _listener = TcpListener::bind((family.vip, 80)).unwrap();
        drop_on_output("tcp flags & (syn | ack) == (syn | ack)");
        let (fd, port) = client(family);
        assert_eq!(action(&kernel, family, port, SYN), "tx");
        start(family, &fd);
        assert_eq!(action(&kernel, family, port, SYN), "pass");
        assert_eq!(action(&kernel, family, port, ACK), "pass");
    });
}

fn drop_on_output(rule: &str) {
    shell("nft add table inet t && nft add chain inet t out '{ type filter hook output priority 0; }'");
    shell(&format!("nft add rule inet t out '{rule}' drop"));
}

#[test]
fn a_syn_cookie_is_accepted_where_it_was_issued() {
    in_both(|family| {
        shell("echo 2 > /proc/sys/net/ipv4/tcp_syncookies");
        let kernel = leaving();
        let _listener = TcpListener::bind((family.vip, 80)).unwrap();
        drop_on_output("tcp flags & (syn | ack) == ack");
        let tap = tap();
        let (fd, port) = client(family);
        start(family, &fd);
        let (client_isn, cookie) = handshake(&tap, family, port);
        let next = client_isn.wrapping_add(1);
        let acknowledge =
            |cookie: u32| (family.segment)(node_mac(ME), port, ACK, next, cookie.wrapping_add(1));
        assert_eq!(kernel.run(&acknowledge(cookie)).action, "pass");
        assert_eq!(kernel.run(&acknowledge(cookie ^ 0x5500)).action, "tx", "an invented cookie");
        if family.vip.is_ipv4() {
            let shifted = with_options(acknowledge(cookie));
            assert_eq!(kernel.run(&shifted).action, "pass", "IP options shift the segment");
        }
    });
}

/// The same with eight bytes of IP options.
fn with_options(frame: Vec<u8>) -> Vec<u8> {
    let mut longer = [&frame[..34], &[1; 8], &frame[34..]].concat();
    longer[14] = 0x47;
    longer[17] += 8;
    longer
}

/// Sees every frame on `lo`.
fn tap() -> OwnedFd {
    let all = Some(SockProtocol::EthAll);
    let fd = socket(AddressFamily::Packet, SockType::Raw, SockFlag::empty(), all).unwrap();
    let patience = nix::sys::time::TimeVal::new(Duration::from_secs(5).as_secs() as i64, 0);
    setsockopt(&fd, sockopt::ReceiveTimeout, &patience).unwrap();
    fd
}

/// Waits for the SYN-ACK to `port`: the client's sequence number and the server's.
fn handshake(tap: &OwnedFd, family: Family, port: u16) -> (u32, u32) {
    let mut frame = [0; 256];
    loop {
        let length =
            recv(tap.as_raw_fd(), &mut frame, MsgFlags::empty()).expect("a SYN-ACK within five seconds");
        let tcp = frame[..length].get(family.tcp..).unwrap_or_default();
        if tcp.len() < 20 {
            continue;
        }
        if tcp[2..4] == port.to_be_bytes() && tcp[13] & (SYN | ACK) == SYN | ACK {
            let word = |at: usize| u32::from_be_bytes([tcp[at], tcp[at + 1], tcp[at + 2], tcp[at + 3]]);
            return (word(8).wrapping_sub(1), word(4));
        }
    }
}
