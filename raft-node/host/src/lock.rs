//! A router as a lock: its neighbour table has one link address for each address, so that its answers to an address that
//! no host has reach only the last one that claimed it.
//!
//! The address is never the kernel's: what a machine that stands still answers must not look like a claim. All of it goes
//! through frames of our own: claim (a unicast request *from* the address, which makes or overrides the router's entry at
//! once, RFC 826 "merge"), echo request, and the answers to the router's own questions about the address.
//!
//! A kernel that forwards IP would send the router's answers back to it: they are for an address that it does not have.
//! They are taken before that, here, and what the kernel does with its copy harms nobody but the log.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd};

use libc::{BPF_ABS, BPF_H, BPF_JEQ, BPF_JMP, BPF_K, BPF_LD, BPF_RET, BPF_W};
use socket2::{Domain, Protocol, SockFilter, Socket, Type};

use crate::Mac;
use crate::arp::{ArpOperation, ArpPacket};
use crate::check::{checksum, types};
use crate::packet::{FRAME_MAX, bind, send, sender};

const ETHERTYPE_ARP: u16 = 0x0806;
const ETHERTYPE_IPV4: u16 = 0x0800;
const BROADCAST: Mac = [0xff; 6];
/// ICMP echo header, and what tells one echo from all others.
const MESSAGE_LEN: usize = 8 + 16;
/// Ethernet, IPv4 without options, the message.
const ECHO_LEN: usize = 14 + 20 + MESSAGE_LEN;
const ICMP: u8 = 1;
/// Hops that an echo to a router on the link needs.
const TTL: u8 = 1;

/// Where the lock is, and who asks for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// The link on which the router is.
    pub ifindex: u32,
    /// Own link address there.
    pub own: Mac,
    /// The address that is claimed.
    pub address: Ipv4Addr,
    /// The router.
    pub router: Ipv4Addr,
    /// Its link address: from any other one nothing counts.
    pub router_mac: Mac,
}

/// What has come about the address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Heard {
    /// The router has answered the echo of this number.
    Pong(u64),
    /// The router asks who has the address.
    Asked(Question),
    /// Another host says that it has the address.
    Foreign(Mac),
}

/// A router's question, to be answered by the holder alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Question {
    packet: ArpPacket,
}

impl Question {
    /// Whether it was for everybody; else the router has us in its table, and makes sure.
    #[must_use]
    pub fn is_broadcast(&self) -> bool {
        self.packet.destination == BROADCAST
    }
}

/// A way to one lock, for a thread that polls. Nothing here waits.
#[derive(Debug)]
pub struct Port {
    socket: Socket,
    place: Place,
    /// Tells the echoes of this port from all others.
    secret: u64,
}

impl Port {
    /// Opens it; nothing is sent yet. Needs `CAP_NET_RAW`.
    ///
    /// # Errors
    /// The system's.
    pub fn open(place: Place) -> io::Result<Self> {
        let socket = sender()?;
        socket.attach_filter(&about(place.address))?;
        bind(&socket, place.ifindex, libc::ETH_P_ALL)?;
        Ok(Self { socket, place, secret: secret()? })
    }

    /// Takes the lock, from whoever has it.
    ///
    /// # Errors
    /// The frame was not sent.
    pub fn claim(&self) -> io::Result<()> {
        let Place { own, address, router, router_mac, .. } = self.place;
        self.send(&ArpPacket::ask(own, address, router_mac, router).to_bytes())
    }

    /// Asks the router for an answer to the address.
    ///
    /// # Errors
    /// The frame was not sent.
    pub fn ping(&self, number: u64) -> io::Result<()> {
        self.send(&echo(&self.place, self.secret, number))
    }

    /// Tells the router that this node has the address.
    ///
    /// # Errors
    /// The frame was not sent.
    pub fn answer(&self, question: &Question) -> io::Result<()> {
        self.send(&ArpPacket::answer(self.place.own, &question.packet).to_bytes())
    }

    /// What has come; `None` when nothing is left.
    ///
    /// # Errors
    /// The link is gone, or down.
    pub fn receive(&self) -> io::Result<Option<Heard>> {
        let mut buffer = [0; FRAME_MAX];
        loop {
            let Some(length) = read(&self.socket, &mut buffer)? else { return Ok(None) };
            if let Some(heard) = parse(&buffer[..length], &self.place, self.secret) {
                return Ok(Some(heard));
            }
        }
    }

    fn send(&self, frame: &[u8]) -> io::Result<()> {
        send(&self.socket, self.place.ifindex, frame)
    }
}

impl AsFd for Port {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// A way to one router that is no lock: whether it answers this host. For a thread that polls.
#[derive(Debug)]
pub struct Plain {
    socket: Socket,
    router: IpAddr,
    /// Tells these echoes from all others.
    secret: u64,
}

impl Plain {
    /// Opens it; nothing is sent yet. Needs `CAP_NET_RAW`.
    ///
    /// # Errors
    /// The system's: no way to the router, for one.
    pub fn open(router: IpAddr) -> io::Result<Self> {
        let (domain, protocol) = match router {
            IpAddr::V4(_) => (Domain::IPV4, Protocol::ICMPV4),
            IpAddr::V6(_) => (Domain::IPV6, Protocol::ICMPV6),
        };
        let socket = Socket::new(domain, Type::RAW.nonblocking(), Some(protocol))?;
        socket.connect(&SocketAddr::new(router, 0).into())?;
        Ok(Self { socket, router, secret: secret()? })
    }

    /// Asks the router for an answer.
    ///
    /// # Errors
    /// It was not sent.
    pub fn ping(&self, number: u64) -> io::Result<()> {
        (&self.socket).write_all(&echo_message(types(self.router).0, self.secret, number))
    }

    /// The number of an echo that was answered; `None` when nothing is left.
    ///
    /// # Errors
    /// The network's.
    pub fn receive(&self) -> io::Result<Option<u64>> {
        let mut buffer = [0; FRAME_MAX];
        loop {
            let Some(length) = read(&self.socket, &mut buffer)? else { return Ok(None) };
            // Behind an IPv4 header; of IPv6 the message alone comes.
            let header = if self.router.is_ipv4() { usize::from(buffer[0] & 0x0f) * 4 } else { 0 };
            let message = buffer.get(header..length).unwrap_or_default();
            if let Some(number) = answered(message, types(self.router).1, self.secret) {
                return Ok(Some(number));
            }
        }
    }
}

impl AsFd for Plain {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

fn secret() -> io::Result<u64> {
    let mut secret = [0; 8];
    getrandom::fill(&mut secret).map_err(io::Error::other)?;
    Ok(u64::from_ne_bytes(secret))
}

/// The length of what was read; `None` when nothing is left.
fn read(mut socket: &Socket, buffer: &mut [u8; FRAME_MAX]) -> io::Result<Option<usize>> {
    match socket.read(buffer) {
        Ok(length) => Ok(Some(length)),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
        Err(error) => Err(error),
    }
}

/// ICMP: header of an echo, secret, number (RFC 792). The kernel puts the checksum of IPv6 in its place.
fn echo_message(kind: u8, secret: u64, number: u64) -> [u8; MESSAGE_LEN] {
    let mut message = [0; MESSAGE_LEN];
    message[0] = kind;
    message[8..16].copy_from_slice(&secret.to_be_bytes());
    message[16..24].copy_from_slice(&number.to_be_bytes());
    let sum = checksum(&message).to_be_bytes();
    message[2..4].copy_from_slice(&sum);
    message
}

/// The number of our echo that `message` answers.
fn answered(message: &[u8], kind: u8, secret: u64) -> Option<u64> {
    let message = message.first_chunk::<MESSAGE_LEN>()?;
    let ours = message[..2] == [kind, 0] && message[8..16] == secret.to_be_bytes();
    ours.then(|| u64::from_be_bytes(message[16..24].try_into().expect("eight bytes")))
}

/// ARP, and IPv4 to the address.
fn about(address: Ipv4Addr) -> [SockFilter; 8] {
    let load = |size: u32, at: u32| SockFilter::new((BPF_LD | size | BPF_ABS) as u16, 0, 0, at);
    let equal = |to: u32, yes: u8, no: u8| SockFilter::new((BPF_JMP | BPF_JEQ | BPF_K) as u16, yes, no, to);
    let end = |length: u32| SockFilter::new((BPF_RET | BPF_K) as u16, 0, 0, length);
    [
        load(BPF_H, 12),
        equal(ETHERTYPE_ARP.into(), 4, 0),
        equal(ETHERTYPE_IPV4.into(), 0, 2),
        load(BPF_W, 14 + 16),
        equal(address.to_bits(), 1, 0),
        end(0),
        end(u32::MAX),
        end(0),
    ]
}

/// A whole frame.
fn echo(place: &Place, secret: u64, number: u64) -> [u8; ECHO_LEN] {
    let mut frame = [0; ECHO_LEN];
    frame[..6].copy_from_slice(&place.router_mac);
    frame[6..12].copy_from_slice(&place.own);
    frame[12..14].copy_from_slice(&ETHERTYPE_IPV4.to_be_bytes());
    let length = u16::try_from(ECHO_LEN - 14).expect("some dozens");
    frame[14] = 0x45;
    frame[16..18].copy_from_slice(&length.to_be_bytes());
    frame[22..24].copy_from_slice(&[TTL, ICMP]);
    frame[26..30].copy_from_slice(&place.address.octets());
    frame[30..34].copy_from_slice(&place.router.octets());
    let sum = checksum(&frame[14..34]).to_be_bytes();
    frame[24..26].copy_from_slice(&sum);
    frame[34..].copy_from_slice(&echo_message(types(place.router.into()).0, secret, number));
    frame
}

fn parse(frame: &[u8], place: &Place, secret: u64) -> Option<Heard> {
    if frame.get(6..12)? == place.own.as_slice() {
        // Sent by this host.
        return None;
    }
    match u16::from_be_bytes([*frame.get(12)?, *frame.get(13)?]) {
        ETHERTYPE_ARP => asked(ArpPacket::parse(frame)?, place),
        ETHERTYPE_IPV4 => pong(frame, place, secret),
        _ => None,
    }
}

fn asked(packet: ArpPacket, place: &Place) -> Option<Heard> {
    if packet.sender_ip == place.address {
        return Some(Heard::Foreign(packet.sender_mac));
    }
    let router = (place.router, place.router_mac);
    let ours = packet.operation == ArpOperation::Request
        && packet.target_ip == place.address
        && (packet.sender_ip, packet.sender_mac) == router;
    ours.then_some(Heard::Asked(Question { packet }))
}

/// Only from the router, to this host and the address, and only to what this port has asked.
fn pong(frame: &[u8], place: &Place, secret: u64) -> Option<Heard> {
    let header = usize::from(*frame.get(14)? & 0x0f) * 4;
    let (ip, message) = (frame.get(14..14 + header)?, frame.get(14 + header..14 + header + MESSAGE_LEN)?);
    let on_link = frame[..6] == place.own && frame[6..12] == place.router_mac;
    let addressed = ip.len() >= 20
        && ip[9] == ICMP
        && ip[12..16] == place.router.octets()
        && ip[16..20] == place.address.octets();
    let number = answered(message, types(place.router.into()).1, secret)?;
    (on_link && addressed && checksum(message) == 0).then_some(Heard::Pong(number))
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWN: Mac = [2, 0, 0, 0, 0, 1];
    const ROUTER: Mac = [2, 0, 0, 0, 0, 9];
    const PLACE: Place = Place {
        ifindex: 1,
        own: OWN,
        address: Ipv4Addr::new(192, 0, 2, 99),
        router: Ipv4Addr::new(192, 0, 2, 1),
        router_mac: ROUTER,
    };

    /// As the router answers: addresses exchanged, another type.
    fn answer(number: u64) -> Vec<u8> {
        let mut frame = echo(&PLACE, 7, number).to_vec();
        frame[..6].copy_from_slice(&OWN);
        frame[6..12].copy_from_slice(&ROUTER);
        frame[26..30].copy_from_slice(&PLACE.router.octets());
        frame[30..34].copy_from_slice(&PLACE.address.octets());
        frame[34] = 0;
        frame[36..38].fill(0);
        let sum = checksum(&frame[34..]).to_be_bytes();
        frame[36..38].copy_from_slice(&sum);
        frame
    }

    #[test]
    fn an_echo_adds_up_and_its_answer_is_known_byte_by_byte() {
        let frame = echo(&PLACE, 7, 3);
        assert_eq!((checksum(&frame[14..34]), checksum(&frame[34..])), (0, 0));
        let good = answer(3);
        assert_eq!(parse(&good, &PLACE, 7), Some(Heard::Pong(3)));
        assert_eq!(parse(&good, &PLACE, 8), None, "another port's");
        // Type of service, id, fragment, time to live and the header's sum are the kernel's business; a router may pad.
        for at in (0..good.len()).filter(|at| ![15, 16, 17, 18, 19, 20, 21, 22, 24, 25].contains(at)) {
            let mut other = good.clone();
            other[at] ^= 1;
            assert_ne!(parse(&other, &PLACE, 7), Some(Heard::Pong(3)), "byte {at}");
        }
        for length in 0..good.len() {
            assert_eq!(parse(&good[..length], &PLACE, 7), None, "{length} bytes");
        }
    }

    #[test]
    fn only_the_router_asks_and_any_other_host_that_has_the_address_is_foreign() {
        let asks = ArpPacket::ask(ROUTER, PLACE.router, OWN, PLACE.address).to_bytes();
        let Some(Heard::Asked(question)) = parse(&asks, &PLACE, 7) else { panic!("a question") };
        assert!(!question.is_broadcast());
        let stranger = [2, 0, 0, 0, 0, 5];
        let other = ArpPacket::ask(stranger, Ipv4Addr::new(192, 0, 2, 5), OWN, PLACE.address).to_bytes();
        assert_eq!(parse(&other, &PLACE, 7), None, "who is not the router learns nothing");
        let claims = ArpPacket::ask(stranger, PLACE.address, ROUTER, PLACE.router).to_bytes();
        assert_eq!(parse(&claims, &PLACE, 7), Some(Heard::Foreign(stranger)));
        let own = ArpPacket::ask(OWN, PLACE.address, ROUTER, PLACE.router).to_bytes();
        assert_eq!(parse(&own, &PLACE, 7), None, "this host's own claim");
    }
}
