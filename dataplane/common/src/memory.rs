//! Flows of services whose sockets are not in the node's own network namespace (published container ports, virtual
//! machines: the node translates the addresses). No socket shows there which node holds a flow, so the program remembers
//! what it accepted for them, and that stands in for a socket while a bucket moves. Where nothing is remembered sockets
//! are looked up all the same: an application that has closed its listener may still hold connections.
//!
//! ```text
//!            SYN, or the first segment seen            another segment           FIN
//! (unknown) -------------------------------> Opening ----------------> Open ------------> Closing
//!     ^                                         | RST, idle              | RST, idle        | RST, idle
//!     +-----------------------------------------+------------------------+------------------+
//! ```
//! - A datagram opens its flow at once.
//! - A SYN on an open or closing flow begins another one with the same ports: whoever held the former has it no more.
//! - What the service itself ends is seen by the client's answer to it. Where there is none the flow ends by idling.

use crate::bytes::{Bytes, Window};
use crate::flow::{Flow, Kind, protocol};
use crate::parse::{ETHERTYPE_IPV4, Ethernet};
use crate::verdict::{BootTime, Socket};

const SECOND: u64 = 1_000_000_000;
/// An open TCP flow is forgotten after so long without a segment: two hours and four minutes (RFC 5382, REQ-5), longer
/// than the keep-alive interval of every common system.
pub const IDLE_OPEN: u64 = (2 * 60 + 4) * 60 * SECOND;
/// One that opens, after as long as the kernel's own translation of it (`nf_conntrack_tcp_timeout_syn_sent`).
pub const IDLE_OPENING: u64 = 120 * SECOND;
/// One that its client has closed: who still gets data acknowledges it sooner than that, and who does not is not to be
/// waited for.
pub const IDLE_CLOSING: u64 = 10 * SECOND;
/// A flow of datagrams, likewise (`nf_conntrack_udp_timeout_stream`): the node could not translate it any more.
pub const IDLE_DATAGRAMS: u64 = 120 * SECOND;

/// Which flow: the key of the map. Plain numbers.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct FlowKey {
    /// The client's address, as words.
    pub client: [u64; 2],
    /// The virtual IP, as words.
    pub vip: [u64; 2],
    /// The client's port.
    pub client_port: u16,
    /// The service's port.
    pub service_port: u16,
    /// `flow::protocol`.
    pub protocol: u32,
}

impl FlowKey {
    /// Of a flow with ports.
    #[inline(always)]
    pub fn of(flow: &Flow) -> Self {
        Self {
            client: flow.client.words(),
            vip: flow.vip.words(),
            client_port: flow.client_port,
            service_port: flow.service_port,
            protocol: flow.protocol.into(),
        }
    }
}

/// A service whose sockets are elsewhere: the key of the map that lists them.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ServiceKey {
    /// The virtual IP, as words.
    pub vip: [u64; 2],
    /// The port.
    pub port: u32,
    /// `flow::protocol`.
    pub protocol: u32,
}

impl ServiceKey {
    /// The service of a flow.
    #[inline(always)]
    pub fn of(flow: &Flow) -> Self {
        Self { vip: flow.vip.words(), port: flow.service_port.into(), protocol: flow.protocol.into() }
    }
}

/// How far a flow is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Stage {
    /// Its handshake may not be over.
    Opening,
    /// Both sides talk.
    Open,
    /// The client has closed its side.
    Closing,
}

/// What is remembered of a flow: the value of the map, one word, so that it is read and written whole. The two lowest
/// bits are the stage, the others the boot time at which it is forgotten.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Known(u64);

impl Known {
    #[inline(always)]
    fn until(stage: Stage, now: BootTime, idle: u64) -> Self {
        Self((now.0 + idle) & !3 | stage as u64)
    }

    /// As the map holds it.
    #[inline(always)]
    pub fn word(self) -> u64 {
        self.0
    }

    /// From the map; `None` when its time is over.
    #[inline(always)]
    pub fn read(word: u64, now: BootTime) -> Option<Self> {
        (word & !3 > now.0).then_some(Self(word))
    }

    /// How far the flow is.
    #[inline(always)]
    pub fn stage(self) -> Stage {
        match self.0 & 3 {
            0 => Stage::Opening,
            1 => Stage::Open,
            _ => Stage::Closing,
        }
    }
}

/// What a frame says of the end of its flow.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum End {
    /// Nothing.
    None,
    /// The client has nothing more to say.
    Half,
    /// It is over.
    Whole,
}

/// FIN and RST of a TCP segment. Later fragments, and segments behind extension headers, say nothing: their flows end by
/// idling.
#[inline(always)]
pub fn end(ethernet: &Ethernet, frame: &(impl Bytes + ?Sized)) -> End {
    match segment(ethernet, frame).and_then(|start| frame.window::<14>(start)) {
        Some(tcp) if tcp.u8::<13>() & 0x04 != 0 => End::Whole,
        Some(tcp) if tcp.u8::<13>() & 0x01 != 0 => End::Half,
        _ => End::None,
    }
}

/// Where the TCP header is.
#[inline(always)]
fn segment(ethernet: &Ethernet, frame: &(impl Bytes + ?Sized)) -> Option<usize> {
    let start = ethernet.payload();
    match ethernet.ethertype {
        ETHERTYPE_IPV4 => {
            let ip = frame.window::<20>(start)?;
            let first = ip.u8::<9>() == protocol::TCP && ip.u16::<6>() & 0x1fff == 0;
            first.then_some(start + usize::from(ip.u8::<0>() & 0x0f) * 4)
        }
        _ => (frame.window::<40>(start)?.u8::<6>() == protocol::TCP).then_some(start + 40),
    }
}

/// What is remembered of a flow after this node accepted a frame of it; `None`: nothing.
#[inline(always)]
pub fn accepted(known: Option<Known>, kind: Kind, end: End, now: BootTime) -> Option<Known> {
    let stage = match (known.map(Known::stage), kind, end) {
        (_, Kind::Datagram, _) => return Some(Known::until(Stage::Open, now, IDLE_DATAGRAMS)),
        (_, Kind::Segment, End::Whole) => return None,
        (_, Kind::Syn, _) | (None, Kind::Segment, End::None) => Stage::Opening,
        (_, Kind::Segment, End::Half) | (Some(Stage::Closing), Kind::Segment, End::None) => Stage::Closing,
        (Some(Stage::Opening | Stage::Open), Kind::Segment, End::None) => Stage::Open,
        // An error, an echo, a fragment without ports: no frame of a flow.
        _ => return known,
    };
    Some(match stage {
        Stage::Opening => Known::until(stage, now, IDLE_OPENING),
        Stage::Closing => Known::until(stage, now, IDLE_CLOSING),
        Stage::Open => Known::until(stage, now, IDLE_OPEN),
    })
}

/// What stands in for a socket.
#[inline(always)]
pub fn socket(known: Option<Known>, kind: Kind) -> Socket {
    match (known.map(Known::stage), kind) {
        (None, _) => Socket::None,
        (Some(Stage::Open | Stage::Closing), Kind::Syn) => Socket::TimeWait,
        (Some(Stage::Opening | Stage::Open | Stage::Closing), _) => Socket::Flow,
    }
}

const _: () = assert!(size_of::<FlowKey>() == 40 && size_of::<ServiceKey>() == 24, "padding");

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: BootTime = BootTime(1_000 * SECOND);

    fn after(frames: &[(Kind, End)]) -> Option<Known> {
        frames.iter().fold(None, |known, (kind, end)| accepted(known, *kind, *end, NOW))
    }

    fn stage(frames: &[(Kind, End)]) -> Option<Stage> {
        after(frames).map(Known::stage)
    }

    const SYN: (Kind, End) = (Kind::Syn, End::None);
    const DATA: (Kind, End) = (Kind::Segment, End::None);
    const FIN: (Kind, End) = (Kind::Segment, End::Half);
    const RST: (Kind, End) = (Kind::Segment, End::Whole);
    const DATAGRAM: (Kind, End) = (Kind::Datagram, End::None);
    const ERROR: (Kind, End) = (Kind::Error, End::None);

    #[test]
    fn a_flow_opens_lives_and_ends() {
        assert_eq!(stage(&[SYN]), Some(Stage::Opening));
        assert_eq!(stage(&[SYN, DATA]), Some(Stage::Open));
        assert_eq!(stage(&[DATA]), Some(Stage::Opening), "a stray segment, or one of before");
        assert_eq!(stage(&[DATA, DATA]), Some(Stage::Open));
        assert_eq!(stage(&[SYN, DATA, FIN]), Some(Stage::Closing));
        assert_eq!(stage(&[SYN, DATA, FIN, DATA]), Some(Stage::Closing), "the last acknowledgements");
        assert_eq!(stage(&[SYN, DATA, FIN, SYN]), Some(Stage::Opening), "the ports are used again");
        assert_eq!(stage(&[SYN, DATA, RST]), None);
        assert_eq!(stage(&[RST]), None);
        assert_eq!(stage(&[DATAGRAM]), Some(Stage::Open));
        assert_eq!(stage(&[ERROR]), None, "an error opens nothing");
        assert_eq!(stage(&[SYN, DATA, ERROR]), Some(Stage::Open));
    }

    #[test]
    fn what_is_idle_is_forgotten_and_traffic_refreshes() {
        for (frames, idle) in [
            (&[SYN, DATA][..], IDLE_OPEN),
            (&[SYN], IDLE_OPENING),
            (&[SYN, FIN], IDLE_CLOSING),
            (&[DATAGRAM], IDLE_DATAGRAMS),
        ] {
            let word = after(frames).unwrap().word();
            assert!(Known::read(word, BootTime(NOW.0 + idle - 4)).is_some(), "{frames:?}");
            assert!(Known::read(word, BootTime(NOW.0 + idle)).is_none(), "{frames:?}");
            let later = BootTime(NOW.0 + idle - 4);
            let (kind, end) = frames[frames.len() - 1];
            let again = accepted(Known::read(word, later), kind, end, later).unwrap();
            assert!(Known::read(again.word(), BootTime(later.0 + idle - 4)).is_some(), "{frames:?}");
        }
    }

    #[test]
    fn it_stands_in_for_a_socket() {
        assert_eq!(socket(after(&[SYN]), Kind::Syn), Socket::Flow, "like a request socket");
        assert_eq!(socket(after(&[SYN, DATA]), Kind::Syn), Socket::TimeWait, "another flow");
        assert_eq!(socket(after(&[SYN, DATA]), Kind::Segment), Socket::Flow);
        assert_eq!(socket(after(&[SYN, DATA, FIN]), Kind::Segment), Socket::Flow);
        assert_eq!(socket(after(&[DATAGRAM]), Kind::Error), Socket::Flow);
        assert_eq!(socket(None, Kind::Segment), Socket::None);
    }
}
