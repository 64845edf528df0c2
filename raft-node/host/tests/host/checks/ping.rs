//! Echoes, and what is none.

use std::io::Read;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use farm_host::check::{Check, Finding};
use socket2::{Domain, Protocol, Socket, Type};

use super::{LONG, SHORT, bad};
use crate::namespace::{CABLE, Lab, NODE_IP, PEER_IP, PEER_IP6, run, setting};

/// Every test is made with raw sockets, and with those that the kernel gives to this group only.
const GROUPS: [&str; 2] = ["1 0", "0 0"];

async fn ping(to: impl Into<IpAddr>, limit: Duration) -> Finding {
    Check::Ping { to: to.into() }.run(limit).await
}

#[test]
fn who_is_there_answers_in_both_families() {
    let _lab = Lab::dual();
    for groups in GROUPS {
        setting("ipv4/ping_group_range", groups);
        for to in
            [PEER_IP.into(), IpAddr::from(PEER_IP6), "127.0.0.1".parse().unwrap(), "::1".parse().unwrap()]
        {
            assert_eq!(run(ping(to, LONG)), Finding::Good, "{to} with groups {groups}");
        }
    }
}

/// The other end takes less than this one sends; a tag of a VLAN is let through beyond (`__is_skb_forwardable`).
#[test]
fn a_packet_comes_in_one_piece_as_long_as_every_end_takes_it() {
    let lab = Lab::dual();
    lab.peer.ip(&format!("link set dev {CABLE} mtu 1400"));
    for groups in GROUPS {
        setting("ipv4/ping_group_range", groups);
        for to in [PEER_IP.into(), IpAddr::from(PEER_IP6)] {
            let carries = |size, limit| run(Check::Carries { to, size }.run(limit));
            for size in [1280, 1399, 1400] {
                assert_eq!(carries(size, LONG), Finding::Good, "{size} to {to} with groups {groups}");
            }
            for size in [1405, 1500] {
                let lost = format!("a packet of {size} bytes does not come to {to} and back");
                assert_eq!(carries(size, SHORT), bad(lost), "{groups}");
            }
            let own = format!("a packet of 1501 bytes does not fit on the way to {to}");
            assert_eq!(carries(1501, LONG), bad(own), "{groups}");
        }
    }
}

#[test]
fn who_is_not_there_does_not() {
    let lab = Lab::dual();
    for dead in ["192.0.2.50", "2001:db8::50"] {
        lab.node.ip(&format!("neighbour add {dead} lladdr 02:00:00:00:00:50 dev {CABLE}"));
    }
    for groups in GROUPS {
        setting("ipv4/ping_group_range", groups);
        for dead in ["192.0.2.50", "2001:db8::50"] {
            let to: IpAddr = dead.parse().unwrap();
            assert_eq!(run(ping(to, SHORT)), bad(format!("no answer from {dead} within 300ms")), "{groups}");
        }
    }
}

/// No route; and a neighbour that nobody is, as the kernel itself finds out and tells with an ICMP error.
#[test]
fn who_cannot_be_reached_is_told_before_the_limit() {
    let _lab = Lab::dual();
    for family in ["ipv4", "ipv6"] {
        setting(&format!("{family}/neigh/{CABLE}/retrans_time_ms"), "10");
    }
    for groups in GROUPS {
        setting("ipv4/ping_group_range", groups);
        for (to, why) in [
            ("203.0.113.1", "Network is unreachable"),
            ("2001:db9::1", "Network is unreachable"),
            ("192.0.2.51", "No route to host"),
            ("2001:db8::51", "No route to host"),
        ] {
            let found = run(ping(to.parse::<IpAddr>().unwrap(), LONG));
            assert_eq!(found, bad(format!("{to} cannot be reached: {why}")), "{groups}");
        }
    }
}

/// What is wrong with an answer.
type Change = fn(&mut Vec<u8>);

/// Answers in place of the peer's kernel, until it is dropped.
struct Responder {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Responder {
    /// `change` is given the answer as it should be, the checksum excepted.
    fn new(lab: &Lab, change: Change) -> Self {
        let socket = lab.in_peer(|| {
            setting("ipv4/icmp_echo_ignore_all", "1");
            Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::ICMPV4)).unwrap()
        });
        socket.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let thread = std::thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                if let Some(request) = request(&socket) {
                    let mut answer = request;
                    answer[0] = 0;
                    change(&mut answer);
                    sum_up(&mut answer);
                    socket.send_to(&answer, &SocketAddr::new(NODE_IP.into(), 0).into()).unwrap();
                }
            }
        });
        Self { stop, thread: Some(thread) }
    }
}

impl Drop for Responder {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let ended = self.thread.take().unwrap().join();
        assert!(std::thread::panicking() || ended.is_ok());
    }
}

/// The next echo request, behind its IP header.
fn request(mut socket: &Socket) -> Option<Vec<u8>> {
    let mut buffer = [0; 256];
    let length = socket.read(&mut buffer).ok()?;
    let message = &buffer[usize::from(buffer[0] & 0x0f) * 4..length];
    (message[0] == 8).then(|| message.to_vec())
}

fn sum_up(message: &mut [u8]) {
    message[2..4].fill(0);
    let mut sum: u32 =
        message.chunks(2).map(|w| u32::from(w[0]) << 8 | u32::from(*w.get(1).unwrap_or(&0))).sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    message[2..4].copy_from_slice(&(!(sum as u16)).to_be_bytes());
}

/// They come from the right host, and some of them with the right identifier.
#[test]
fn only_the_answer_to_this_very_request_counts() {
    let lab = Lab::new();
    for groups in GROUPS {
        setting("ipv4/ping_group_range", groups);
        let changes: [(&str, Change); 5] = [
            ("identifier", |answer| answer[4] ^= 1),
            ("sequence", |answer| answer[7] ^= 1),
            ("nonce", |answer| answer[23] ^= 1),
            ("a byte more", |answer| answer.push(0)),
            ("another type", |answer| answer[0] = 13),
        ];
        for (what, change) in changes {
            let _responder = Responder::new(&lab, change);
            let none = bad(format!("no answer from {PEER_IP} within 300ms"));
            assert_eq!(run(ping(PEER_IP, SHORT)), none, "{what}, groups {groups}");
        }
        let _responder = Responder::new(&lab, |_| {});
        assert_eq!(run(ping(PEER_IP, LONG)), Finding::Good, "groups {groups}");
    }
}

/// Two at once: each finds its own answer.
#[test]
fn many_ping_the_same_host() {
    let _lab = Lab::new();
    for groups in GROUPS {
        setting("ipv4/ping_group_range", groups);
        let found = run(futures::future::join_all((0..50).map(|_| ping(PEER_IP, LONG))));
        assert!(found.iter().all(|found| *found == Finding::Good), "{found:?}");
    }
}
