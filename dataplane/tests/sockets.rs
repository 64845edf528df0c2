//! An open change against real sockets: whoever holds the flow accepts it.

mod program_support;

use std::io::Read;
use std::net::{Shutdown, SocketAddr, SocketAddrV4, TcpListener, TcpStream};
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::Duration;

use farm_common::verdict::{Mode, Phase, Reason};
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrIn, bind, connect, recv, setsockopt,
    socket, sockopt,
};

use program_support::{CLIENT, Kernel, VIP, in_namespace, node_mac, port, segment, shell, table};

const SYN: u8 = 0x02;
const ACK: u8 = 0x10;
/// This node is P, in Move: what it does not hold goes to node 2.
const ME: u8 = 1;

fn leaving() -> Kernel {
    let mut kernel = Kernel::load(port(ME));
    kernel.publish(&table(ME, Mode::Directed, Phase::Move, ME, 2));
    kernel
}

fn action(kernel: &Kernel, port: u16, flags: u8) -> &'static str {
    kernel.run(&segment(node_mac(ME), port, flags, 1, 1)).action
}

/// A client socket from [`CLIENT`], and its port.
fn client() -> (OwnedFd, u16) {
    let fd = socket(AddressFamily::Inet, SockType::Stream, SockFlag::SOCK_NONBLOCK, None).unwrap();
    bind(fd.as_raw_fd(), &SockaddrIn::from(SocketAddrV4::new(CLIENT, 0))).unwrap();
    let name: SockaddrIn = nix::sys::socket::getsockname(fd.as_raw_fd()).unwrap();
    (fd, name.port())
}

/// Starts a handshake without waiting for its end.
fn start(fd: &OwnedFd) {
    let target = SockaddrIn::from(SocketAddrV4::new(VIP, 80));
    assert_eq!(connect(fd.as_raw_fd(), &target), Err(nix::Error::EINPROGRESS));
}

/// On `lo` a handshake is over when `connect` returns.
fn established() -> (TcpStream, TcpStream, u16, TcpListener) {
    let listener = TcpListener::bind((VIP, 80)).unwrap();
    let (fd, port) = client();
    start(&fd);
    let (server, peer) = listener.accept().unwrap();
    assert_eq!(peer, SocketAddr::from((CLIENT, port)));
    let near = TcpStream::from(fd);
    near.set_nonblocking(false).unwrap();
    (near, server, port, listener)
}

#[test]
fn an_established_flow_stays_also_for_its_syn_and_its_errors() {
    in_namespace(|| {
        let kernel = leaving();
        let (_near, _server, port, _listener) = established();
        assert_eq!(action(&kernel, port, ACK), "pass");
        assert_eq!(action(&kernel, port, SYN), "pass");
        assert_eq!(kernel.run(&unreachable_error(port)).action, "pass");
        assert!(kernel.counters().contains(&(Reason::AcceptSocket, 3)));
        // Another port: only the listener is there.
        assert_eq!(action(&kernel, port ^ 1, ACK), "tx");
        assert_eq!(action(&kernel, port ^ 1, SYN), "tx");
        assert_eq!(kernel.run(&unreachable_error(port ^ 1)).action, "tx");
    });
}

/// "Fragmentation needed" by a router, about a segment of the flow.
fn unreachable_error(port: u16) -> Vec<u8> {
    let mut frame = segment(node_mac(ME), port, ACK, 1, 1);
    let router = [10, 9, 9, 9];
    frame[23] = 1;
    frame[26..30].copy_from_slice(&router);
    frame.truncate(34);
    frame.extend([3, 4, 0, 0, 0, 0, 5, 0, 0x45, 0, 0, 40, 0, 0, 0x40, 0, 64, 6, 0, 0]);
    frame.extend([VIP.octets(), CLIENT.octets()].concat());
    frame.extend([80u16.to_be_bytes(), port.to_be_bytes(), [0, 0], [0, 0]].concat());
    frame
}

#[test]
fn a_closed_connection_keeps_its_segments_but_not_a_new_syn() {
    in_namespace(|| {
        let kernel = leaving();
        let (mut near, server, port, _listener) = established();
        // Who closes first keeps TIME_WAIT.
        server.shutdown(Shutdown::Write).unwrap();
        assert_eq!(near.read(&mut [0; 1]).unwrap(), 0);
        drop(near);
        drop(server);
        assert_eq!(action(&kernel, port, ACK), "pass");
        assert_eq!(action(&kernel, port, SYN), "tx", "a new connection, not this node's");
    });
}

#[test]
fn a_request_socket_keeps_its_syn() {
    in_namespace(|| {
        let kernel = leaving();
        let _listener = TcpListener::bind((VIP, 80)).unwrap();
        drop_on_output("tcp flags & (syn | ack) == (syn | ack)");
        let (fd, port) = client();
        assert_eq!(action(&kernel, port, SYN), "tx");
        start(&fd);
        assert_eq!(action(&kernel, port, SYN), "pass");
        assert_eq!(action(&kernel, port, ACK), "pass");
    });
}

fn drop_on_output(rule: &str) {
    shell("nft add table ip t && nft add chain ip t out '{ type filter hook output priority 0; }'");
    shell(&format!("nft add rule ip t out '{rule}' drop"));
}

#[test]
fn a_syn_cookie_is_accepted_where_it_was_issued() {
    in_namespace(|| {
        shell("echo 2 > /proc/sys/net/ipv4/tcp_syncookies");
        let kernel = leaving();
        let _listener = TcpListener::bind((VIP, 80)).unwrap();
        drop_on_output("tcp flags & (syn | ack) == ack");
        let tap = tap();
        let (fd, port) = client();
        start(&fd);
        let (client_isn, cookie) = handshake(&tap, port);
        let acknowledge =
            |cookie: u32| segment(node_mac(ME), port, ACK, client_isn + 1, cookie.wrapping_add(1));
        assert_eq!(kernel.run(&acknowledge(cookie)).action, "pass");
        assert_eq!(kernel.run(&acknowledge(cookie ^ 0x5500)).action, "tx", "an invented cookie");
        assert_eq!(
            kernel.run(&with_options(acknowledge(cookie))).action,
            "pass",
            "IP options shift the segment"
        );
    });
}

/// The same with eight bytes of IP options.
fn with_options(frame: Vec<u8>) -> Vec<u8> {
    let mut longer = [&frame[..34], &[1; 8], &frame[34..]].concat();
    longer[14] = 0x47;
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
fn handshake(tap: &OwnedFd, port: u16) -> (u32, u32) {
    let mut frame = [0; 256];
    loop {
        let length =
            recv(tap.as_raw_fd(), &mut frame, MsgFlags::empty()).expect("a SYN-ACK within five seconds");
        let tcp = &frame[34..length];
        if tcp[2..4] == port.to_be_bytes() && tcp[13] & (SYN | ACK) == SYN | ACK {
            let word = |at: usize| u32::from_be_bytes([tcp[at], tcp[at + 1], tcp[at + 2], tcp[at + 3]]);
            return (word(8).wrapping_sub(1), word(4));
        }
    }
}
