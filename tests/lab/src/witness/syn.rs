//! A stream of SYNs from many clients, each with a sequence number of its own, and who answered which. Streams of the
//! same clients do not share numbers either: a kernel that lost a client's RST repeats its answer for half a minute.
//! The client's kernel routes them and resolves addresses as for any program; it has no socket for the answers, so
//! it ends each half-open connection with a RST, and no node keeps a request socket.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use nix::errno::Errno;
use socket2::{Domain, Protocol, Socket, Type};

use super::acceptance::{Acceptance, Kind};
use super::frame::Segment;
use super::time::BootTime;
use crate::lab::Lab;
use crate::names::{Family, Place};

/// Ports of the streams: above the kernel's own choice for clients (32768 to 60999).
const PORTS: std::ops::RangeInclusive<u16> = 61_000..=65_000;

const TCP: u8 = 6;
/// Routers that a SYN may pass.
const HOPS: u8 = 64;

/// A stream to be started.
#[derive(Clone, Debug)]
pub struct SynStream {
    /// The machine that sends: `client` or `remote`.
    pub from: Place,
    /// The clients it plays, in turn; addresses of that machine.
    pub sources: Vec<SocketAddr>,
    /// Where they want to connect.
    pub service: SocketAddr,
    /// SYNs per second.
    pub rate: u32,
}

/// One attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Syn {
    /// When it was sent.
    pub at: BootTime,
    /// By which client.
    pub source: SocketAddr,
    /// Its sequence number.
    pub isn: u32,
}

/// One attempt and its answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// The attempt.
    pub syn: Syn,
    /// Who answered first, and when.
    pub answer: Option<(Place, BootTime)>,
}

impl SynStream {
    /// `count` clients of `from`: different addresses first, then different ports.
    #[must_use]
    pub fn clients(from: Place, family: Family, count: usize) -> Vec<SocketAddr> {
        PORTS
            .flat_map(|port| from.crowd(family).map(move |ip| SocketAddr::new(ip, port)))
            .take(count)
            .collect()
    }

    /// Starts sending.
    ///
    /// # Errors
    /// No raw socket.
    pub fn start(self, lab: &Lab) -> Result<RunningSyns> {
        let socket = lab.namespace(self.from).run(|| {
            let domain = Domain::for_address(self.service);
            Socket::new(domain, Type::RAW, Some(Protocol::from(libc::IPPROTO_RAW))).context("a raw socket")
        })?;
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread =
            std::thread::Builder::new().name("syns".into()).spawn(move || self.send(&socket, &stopped))?;
        Ok(RunningSyns { stop, thread })
    }

    fn send(&self, socket: &Socket, stop: &AtomicBool) -> Result<Vec<Syn>> {
        let (begin, mut sent) = (Instant::now(), Vec::new());
        // A raw socket of IPv6 takes a port for the number of a protocol.
        let to = SocketAddr::new(self.service.ip(), 0).into();
        let first_isn = BootTime::now().0 as u32;
        for (isn, source) in (0u32..).zip(self.sources.iter().cycle()) {
            if stop.load(Ordering::Relaxed) {
                break;
            }
            let due = begin + Duration::from_secs(1) * isn / self.rate;
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
            // Far apart, so that a port used again is taken for a new connection.
            let isn = isn.wrapping_mul(0x0100_0000 | 0x3_1415).wrapping_add(first_isn);
            let at = BootTime::now();
            match socket.send_to(&packet(*source, self.service, isn), &to) {
                Ok(_) => {}
                Err(e) if unreachable(&e) => {}
                Err(e) => return Err(e).context("sending a SYN"),
            }
            sent.push(Syn { at, source: *source, isn });
        }
        Ok(sent)
    }
}

/// What a client sees while nobody says where the service is, or its cable is out: an attempt without answer.
fn unreachable(e: &std::io::Error) -> bool {
    let errno = e.raw_os_error().map(Errno::from_raw);
    matches!(errno, Some(Errno::EHOSTUNREACH | Errno::ENETUNREACH | Errno::ENETDOWN | Errno::ENOBUFS))
}

/// A stream that runs.
#[derive(Debug)]
pub struct RunningSyns {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Result<Vec<Syn>>>,
}

impl RunningSyns {
    /// Ends the stream and returns what it sent.
    ///
    /// # Errors
    /// Sending failed for another reason than an unreachable service.
    pub fn stop(self) -> Result<Vec<Syn>> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }
}

/// Finds the answer to each attempt.
#[must_use]
pub fn outcomes(syns: &[Syn], accepted: &[Acceptance]) -> Vec<Outcome> {
    let mut answers = BTreeMap::new();
    for a in accepted {
        if let Kind::Opened(isn) = a.kind {
            answers.entry((a.client, isn)).or_insert((a.node, a.at));
        }
    }
    syns.iter()
        .map(|syn| Outcome { syn: *syn, answer: answers.get(&(syn.source, syn.isn)).copied() })
        .collect()
}

/// The longest time between two attempts in a row that were answered: what the unluckiest client saw.
#[must_use]
pub fn longest_gap(outcomes: &[Outcome]) -> Duration {
    let answered: Vec<BootTime> = outcomes.iter().filter(|o| o.answer.is_some()).map(|o| o.syn.at).collect();
    answered.windows(2).map(|pair| pair[1].since(pair[0])).max().unwrap_or(Duration::MAX)
}

/// Who answered each client last.
#[must_use]
pub fn owners(outcomes: &[Outcome]) -> BTreeMap<SocketAddr, Place> {
    outcomes.iter().filter_map(|o| Some((o.syn.source, o.answer?.0))).collect()
}

/// A packet with a bare SYN. Sent through a socket, the kernel fills in length, identification and checksum of an IPv4 header.
pub(crate) fn packet(source: SocketAddr, service: SocketAddr, isn: u32) -> Vec<u8> {
    let segment = segment(source, service, isn);
    let mut packet = match (source.ip(), service.ip()) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            [&[0x45, 0, 0, 0, 0, 0, 0, 0, HOPS, TCP, 0, 0][..], &from.octets(), &to.octets()].concat()
        }
        (from, to) => {
            [&[0x60, 0, 0, 0, 0, segment.len() as u8, TCP, HOPS][..], &octets(from), &octets(to)].concat()
        }
    };
    packet.extend_from_slice(&segment);
    packet
}

fn segment(source: SocketAddr, service: SocketAddr, isn: u32) -> [u8; 20] {
    let mut segment = [0; 20];
    segment[0..2].copy_from_slice(&source.port().to_be_bytes());
    segment[2..4].copy_from_slice(&service.port().to_be_bytes());
    segment[4..8].copy_from_slice(&isn.to_be_bytes());
    segment[12] = 5 << 4;
    segment[13] = Segment::SYN;
    segment[14..16].copy_from_slice(&u16::MAX.to_be_bytes());
    let sum = checksum(source.ip(), service.ip(), &segment);
    segment[16..18].copy_from_slice(&sum.to_be_bytes());
    segment
}

fn octets(ip: IpAddr) -> Vec<u8> {
    match ip {
        IpAddr::V4(ip) => ip.octets().to_vec(),
        IpAddr::V6(ip) => ip.octets().to_vec(),
    }
}

/// The checksum of a TCP segment with its pseudo header (RFC 9293 §3.1).
fn checksum(source: IpAddr, destination: IpAddr, segment: &[u8]) -> u16 {
    let pseudo = [octets(source), octets(destination), vec![0, TCP, 0, segment.len() as u8]].concat();
    internet_checksum(&[&pseudo, segment].concat())
}

/// RFC 1071.
pub(crate) fn internet_checksum(bytes: &[u8]) -> u16 {
    let words = bytes.chunks(2).map(|w| u32::from(w[0]) << 8 | u32::from(*w.get(1).unwrap_or(&0)));
    let mut sum = words.sum::<u32>();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

#[cfg(test)]
mod tests {
    use super::super::frame::{Content, Frame};
    use super::*;
    use crate::names::{FIRST_VIP, FIRST_VIP6};

    const SERVICE: SocketAddr = SocketAddr::new(FIRST_VIP, 80);

    fn first(family: Family) -> SocketAddr {
        SynStream::clients(Place::Client, family, 1)[0]
    }

    fn outcome(at_ms: u64, node: Option<u8>) -> Outcome {
        let source = SocketAddr::new(first(Family::V4).ip(), at_ms as u16);
        let at = BootTime(at_ms * 1_000_000);
        Outcome { syn: Syn { at, source, isn: 1 }, answer: node.map(|i| (Place::Node(i), at)) }
    }

    #[test]
    fn the_gap_is_between_answered_attempts() {
        let run = [
            outcome(0, Some(1)),
            outcome(5, Some(1)),
            outcome(10, None),
            outcome(15, None),
            outcome(95, Some(2)),
        ];
        assert_eq!(longest_gap(&run), Duration::from_millis(90));
        assert_eq!(owners(&run).len(), 3);
        assert_eq!(longest_gap(&run[2..]), Duration::MAX, "a single answer ends no gap");
    }

    #[test]
    fn the_first_answer_counts() {
        let syn = outcome(7, None).syn;
        let answer = |at: u64, node: u8, isn: u32| Acceptance {
            at: BootTime(at),
            node: Place::Node(node),
            client: syn.source,
            service: SERVICE,
            kind: Kind::Opened(isn),
        };
        let joined = outcomes(&[syn], &[answer(9, 3, 2), answer(10, 1, 1), answer(11, 2, 1)]);
        assert_eq!(joined[0].answer, Some((Place::Node(1), BootTime(10))));
    }

    #[test]
    fn clients_are_distinct() {
        for family in [Family::V4, Family::V6] {
            let clients = SynStream::clients(Place::Client, family, 1_000);
            let distinct: std::collections::BTreeSet<_> = clients.iter().collect();
            assert_eq!((clients.len(), distinct.len()), (1_000, 1_000));
            assert_eq!(clients.iter().filter(|c| c.port() == 61_000).count(), 123);
        }
    }

    #[test]
    fn the_checksum_is_that_of_the_standard() {
        for (vip, header) in [(FIRST_VIP, 20), (FIRST_VIP6, 40)] {
            let (source, service) = (first(Family::of(vip)), SocketAddr::new(vip, 80));
            let packet = packet(source, service, 0xdead_beef);
            // With the checksum in place the sum over everything is zero.
            assert_eq!(checksum(source.ip(), vip, &packet[header..]), 0);
        }
    }

    #[test]
    fn a_syn_is_what_the_witness_reads() {
        for (vip, ether_type) in [(FIRST_VIP, [0x08, 0]), (FIRST_VIP6, [0x86, 0xdd])] {
            let (source, destination) = (first(Family::of(vip)), SocketAddr::new(vip, 80));
            let frame = [&[2; 12][..], &ether_type, &packet(source, destination, 7)].concat();
            let read = Frame::parse(&frame).map(|frame| frame.content);
            let flags = Segment::SYN;
            let syn = Segment { source, destination, sequence: 7, acknowledgement: 0, flags };
            assert_eq!(read, Some(Content::Tcp(syn)));
        }
    }
}
