//! Flows whose sockets are not on this node: what the program accepted stands in for the socket.

mod program_support;

use std::net::IpAddr;

use farm_common::verdict::{Mode, Phase};
use program_support::{
    CLIENT_MAC, Kernel, VIP, VIP6, datagram, in_namespace, node_mac, port, segment, segment6, table,
};

const ME: u8 = 1;
const SYN: u8 = 0x02;
const ACK: u8 = 0x10;
const FIN: u8 = 0x11;
const RST: u8 = 0x04;

/// A node that owns everything, then is the previous owner; no socket anywhere.
struct Node {
    kernel: Kernel,
    write: fn([u8; 6], u16, u8, u32, u32) -> Vec<u8>,
    vip: IpAddr,
}

impl Node {
    fn tcp(&self, port: u16, flags: u8) -> &'static str {
        self.kernel.run(&(self.write)(node_mac(ME), port, flags, 1, 1)).action
    }

    fn udp(&self, port: u16) -> &'static str {
        self.kernel.run(&datagram(self.vip, node_mac(ME), port)).action
    }

    fn own(&mut self) {
        self.kernel.publish(&table(ME, Mode::Directed, Phase::Stable, 0, ME));
    }

    fn leave(&mut self, phase: Phase) {
        self.kernel.publish(&table(ME, Mode::Directed, phase, ME, 2));
    }
}

fn in_both(work: impl Fn(Node) + Sync) {
    for (vip, write) in [(IpAddr::V4(VIP), segment as fn(_, _, _, _, _) -> _), (VIP6.into(), segment6)] {
        in_namespace(|| {
            let mut kernel = Kernel::load(port(ME));
            kernel.remember(6, 80, port(ME));
            kernel.remember(17, 53, port(ME));
            let mut node = Node { kernel, write, vip };
            node.own();
            work(node);
        });
    }
}

#[test]
fn what_was_accepted_is_kept_while_its_bucket_moves() {
    in_both(|mut node| {
        assert_eq!([SYN, ACK, ACK].map(|flags| node.tcp(4001, flags)), ["pass"; 3]);
        assert_eq!(node.udp(4003), "pass");
        for phase in [Phase::Move, Phase::MoveClosed] {
            node.leave(phase);
            assert_eq!([node.tcp(4001, ACK), node.udp(4003)], ["pass"; 2], "{phase:?}");
            assert_ne!(node.tcp(4002, ACK), "pass", "{phase:?}");
            assert_ne!(node.udp(4004), "pass", "{phase:?}");
        }
        node.leave(Phase::Activate);
        assert_eq!([node.tcp(4001, ACK), node.tcp(4002, ACK)], ["pass", "tx"]);
        assert_eq!(node.udp(4003), "tx", "datagrams are the new owner's");
    });
}

#[test]
fn a_handshake_half_done_keeps_its_syn_and_ports_used_again_do_not() {
    in_both(|mut node| {
        assert_eq!(node.tcp(4001, SYN), "pass");
        assert_eq!([SYN, ACK, ACK].map(|flags| node.tcp(4002, flags)), ["pass"; 3]);
        node.leave(Phase::Move);
        assert_eq!(node.tcp(4001, SYN), "pass");
        assert_eq!(node.tcp(4002, SYN), "tx", "another connection, the new owner's");
        assert_eq!(node.tcp(4002, ACK), "tx", "and its segments with it");
    });
}

#[test]
fn what_ended_is_not_kept() {
    in_both(|mut node| {
        for port in [4001, 4002] {
            assert_eq!([SYN, ACK, ACK].map(|flags| node.tcp(port, flags)), ["pass"; 3]);
        }
        assert_eq!(node.tcp(4001, RST), "pass");
        assert_eq!(node.tcp(4002, FIN), "pass");
        node.leave(Phase::Move);
        assert_eq!(node.tcp(4001, ACK), "tx");
        assert_eq!(node.tcp(4002, ACK), "pass", "the other side may still talk");
        assert_eq!(node.tcp(4002, SYN), "tx");
    });
}

/// The new owner accepts what is bounced to it, and holds it from then on.
#[test]
fn the_new_owner_remembers_too() {
    in_both(|mut node| {
        node.kernel.publish(&table(ME, Mode::Directed, Phase::Move, 2, ME));
        assert_eq!(node.tcp(4001, ACK), "tx");
        let mut bounced = (node.write)(node_mac(ME), 4001, SYN, 1, 1);
        assert_eq!(bounced[6..12], CLIENT_MAC);
        bounced[6..12].copy_from_slice(&node_mac(2));
        let mut plain = bounced.clone();
        mark(&mut bounced);
        assert_eq!(node.kernel.run(&bounced).action, "pass");
        plain[6..12].copy_from_slice(&CLIENT_MAC);
        assert_eq!(node.kernel.run(&plain).action, "pass", "its SYN once more");
        assert_eq!(node.tcp(4001, ACK), "pass");
    });
}

/// Gives the packet the DSCP of a bounce; the program looks at no checksum.
fn mark(frame: &mut [u8]) {
    use farm_common::rewrite::MARK;
    match frame[12..14] {
        [8, 0] => frame[15] = MARK << 2,
        _ => (frame[14], frame[15]) = (0x60 | MARK >> 2, (MARK & 3) << 6),
    }
}

#[test]
fn other_services_are_not_remembered() {
    in_namespace(|| {
        let mut kernel = Kernel::load(port(ME));
        kernel.remember(17, 53, port(ME));
        let mut node = Node { kernel, write: segment, vip: VIP.into() };
        node.own();
        assert_eq!([SYN, ACK, ACK].map(|flags| node.tcp(4001, flags)), ["pass"; 3]);
        node.leave(Phase::Move);
        assert_eq!(node.tcp(4001, ACK), "tx", "its sockets are asked for");
    });
}
