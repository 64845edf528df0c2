//! ICMP echo (RFC 792, RFC 4443 §4).

use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr};

use nix::errno::Errno;
use nix::sys::socket::{setsockopt, sockopt};
use rustix::net::sockopt::{
    Ipv4PathMtuDiscovery, Ipv6PathMtuDiscovery, set_ip_mtu_discover, set_ipv6_mtu_discover,
};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::{Found, Limit, bad, errno, unknown, unreachable, words};

/// Header of an echo: type, code, checksum, identifier, sequence.
const HEADER: usize = 8;
/// Tells this echo from all others, of whatever program.
type Nonce = [u8; 16];
/// As much as any link carries at once; an answer has 24 bytes behind its IP header.
const BUFFER: usize = 1500;
/// Of the one request.
const SEQUENCE: u16 = 1;

/// (request, answer) by family.
pub(crate) const fn types(to: IpAddr) -> (u8, u8) {
    match to {
        IpAddr::V4(_) => (8, 0),
        IpAddr::V6(_) => (128, 129),
    }
}

pub(super) async fn check(to: IpAddr, limit: Limit) -> Found {
    let echo =
        Echo::open(to).or_else(|error| unknown(format!("{to} cannot be pinged: {}", words(&error))))?;
    let exchange = async {
        match echo.exchange().await {
            Ok(()) => Ok(()),
            // Says what a broken TCP connection says, but there is none.
            Err(error) if errno(&error) == Some(Errno::ECONNREFUSED) => bad(format!("{to} refuses pings")),
            Err(error) => Err(unreachable(to, &error)),
        }
    };
    limit.of(exchange, || format!("no answer from {to} within {limit}")).await
}

/// Bytes of the header of an IP packet without options.
const fn ip_header(to: IpAddr) -> u16 {
    match to {
        IpAddr::V4(_) => 20,
        IpAddr::V6(_) => 40,
    }
}

/// Whether an IP packet of `size` bytes comes to `to` in one piece, and the answer back. One that is longer than what
/// this host's own interface carries does not.
pub(super) async fn carries(to: IpAddr, size: u16, limit: Limit) -> Found {
    let mut echo =
        Echo::open(to).or_else(|error| unknown(format!("{to} cannot be pinged: {}", words(&error))))?;
    let smallest = usize::from(ip_header(to)) + HEADER + echo.nonce.len();
    echo.padding = usize::from(size).saturating_sub(smallest);
    let lost = || format!("a packet of {size} bytes does not come to {to} and back");
    let exchange = async {
        let came = async {
            echo.unfragmented()?;
            echo.exchange().await
        };
        match came.await {
            Ok(()) => Ok(()),
            Err(error) if errno(&error) == Some(Errno::EMSGSIZE) => {
                bad(format!("a packet of {size} bytes does not fit on the way to {to}"))
            }
            // So says a cable between two namespaces whose other end takes less.
            Err(error) if errno(&error) == Some(Errno::ENOBUFS) => bad(lost()),
            Err(error) => Err(unreachable(to, &error)),
        }
    };
    limit.of(exchange, lost).await
}

/// A socket for one echo.
struct Echo {
    socket: AsyncFd<Socket>,
    to: IpAddr,
    id: u16,
    nonce: Nonce,
    /// Bytes of nothing behind it.
    padding: usize,
    /// Whether what is received begins with the IP header.
    headed: bool,
}

impl Echo {
    /// The kernel hands a datagram socket only the answers with its own identifier, but gives one only to groups in
    /// `net.ipv4.ping_group_range` (icmp(7)). A raw one needs `CAP_NET_RAW`.
    fn open(to: IpAddr) -> io::Result<Self> {
        let nonce = random()?;
        match Socket::new(domain(to), Type::DGRAM, Some(protocol(to))) {
            Ok(socket) => {
                socket.bind(&unspecified(to).into())?;
                let id = socket.local_addr()?.as_socket().map_or(0, |own| own.port());
                Self::prepare(socket, to, id, nonce, false)
            }
            Err(_) => {
                let socket = Socket::new(domain(to), Type::RAW, Some(protocol(to)))?;
                let id = u16::from_ne_bytes(random()?);
                Self::prepare(socket, to, id, nonce, to.is_ipv4())
            }
        }
    }

    fn prepare(socket: Socket, to: IpAddr, id: u16, nonce: Nonce, headed: bool) -> io::Result<Self> {
        socket.set_nonblocking(true)?;
        // Otherwise nobody says that a router, or this host, found no way.
        match to {
            IpAddr::V4(_) => setsockopt(&socket, sockopt::Ipv4RecvErr, &true)?,
            IpAddr::V6(_) => setsockopt(&socket, sockopt::Ipv6RecvErr, &true)?,
        }
        let socket = crate::event::of(socket, Interest::READABLE | Interest::ERROR)?;
        Ok(Self { socket, to, id, nonce, padding: 0, headed })
    }

    /// Whatever the kernel remembers of the path: it is to be tried.
    fn unfragmented(&self) -> io::Result<()> {
        let socket = self.socket.get_ref();
        match self.to {
            IpAddr::V4(_) => set_ip_mtu_discover(socket, Ipv4PathMtuDiscovery::PROBE)?,
            IpAddr::V6(_) => set_ipv6_mtu_discover(socket, Ipv6PathMtuDiscovery::PROBE)?,
        }
        Ok(())
    }

    /// Returns when the answer has come. Errors are about the way to it.
    async fn exchange(&self) -> io::Result<()> {
        let mut socket = self.socket.get_ref();
        socket.connect(&SocketAddr::new(self.to, 0).into())?;
        socket.write_all(&request(self.to, self.id, &self.nonce, self.padding))?;
        let mut buffer = vec![0; BUFFER + self.padding];
        loop {
            let mut ready = self.socket.ready(Interest::READABLE | Interest::ERROR).await?;
            match ready.try_io(|socket| socket.get_ref().read(&mut buffer)) {
                Ok(Ok(length)) if self.is_answer(&buffer[..length]) => return Ok(()),
                Ok(Err(error)) => return Err(error),
                // Somebody else's, or none.
                Ok(Ok(_)) | Err(_) => {}
            }
        }
    }

    fn is_answer(&self, datagram: &[u8]) -> bool {
        let message = if self.headed { behind_ip_header(datagram) } else { Some(datagram) };
        message.is_some_and(|message| is_answer(message, self.to, self.id, &self.nonce, self.padding))
    }
}

fn domain(to: IpAddr) -> Domain {
    if to.is_ipv4() { Domain::IPV4 } else { Domain::IPV6 }
}

fn protocol(to: IpAddr) -> Protocol {
    if to.is_ipv4() { Protocol::ICMPV4 } else { Protocol::ICMPV6 }
}

/// With port 0: the kernel chooses the identifier.
fn unspecified(to: IpAddr) -> SocketAddr {
    match to {
        IpAddr::V4(_) => SocketAddr::new(std::net::Ipv4Addr::UNSPECIFIED.into(), 0),
        IpAddr::V6(_) => SocketAddr::new(std::net::Ipv6Addr::UNSPECIFIED.into(), 0),
    }
}

fn random<const N: usize>() -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(io::Error::other)?;
    Ok(bytes)
}

/// The bytes behind the IP header. The kernel fills in the checksum of IPv6, which covers addresses.
fn request(to: IpAddr, id: u16, nonce: &Nonce, padding: usize) -> Vec<u8> {
    let mut message = vec![types(to).0, 0, 0, 0];
    message.extend(id.to_be_bytes());
    message.extend(SEQUENCE.to_be_bytes());
    message.extend(nonce);
    message.extend(std::iter::repeat_n(0, padding));
    if to.is_ipv4() {
        let sum = checksum(&message).to_be_bytes();
        message[2..4].copy_from_slice(&sum);
    }
    message
}

/// RFC 1071: a byte that is left over counts as if a zero followed.
pub(crate) fn checksum(message: &[u8]) -> u16 {
    let (words, rest) = message.as_chunks::<2>();
    let mut sum: u32 = words.iter().map(|word| u32::from(u16::from_be_bytes(*word))).sum();
    sum += rest.iter().map(|byte| u32::from(*byte) << 8).sum::<u32>();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !u16::try_from(sum).expect("it was folded")
}

/// Its length is in the low four bits of its first byte, in words of four (RFC 791 §3.1).
fn behind_ip_header(datagram: &[u8]) -> Option<&[u8]> {
    let length = usize::from(datagram.first()? & 0x0f) * 4;
    datagram.get(length..)
}

fn is_answer(message: &[u8], to: IpAddr, id: u16, nonce: &Nonce, padding: usize) -> bool {
    let Some((header, data)) = message.split_at_checked(HEADER) else { return false };
    header[..2] == [types(to).1, 0]
        && header[4..6] == id.to_be_bytes()
        && header[6..8] == SEQUENCE.to_be_bytes()
        && data.len() == nonce.len() + padding
        && data.starts_with(nonce)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TO: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));
    const NONCE: Nonce = [7; 16];

    /// As the kernel answers: the request, with another type.
    fn answer(to: IpAddr) -> Vec<u8> {
        let mut message = request(to, 0x1234, &NONCE, 0);
        message[0] = types(to).1;
        message
    }

    #[test]
    fn a_request_adds_up_to_nothing() {
        let message = request(TO, 0xfffe, &[0xff; 16], 0);
        assert_eq!(checksum(&message), 0);
        assert_eq!(message.len(), HEADER + 16);
        assert_eq!(checksum(&request(TO, 0xfffe, &[0xff; 16], 7)), 0, "of an odd length");
    }

    #[test]
    fn every_byte_that_makes_it_the_answer_is_looked_at() {
        for to in [TO, "2001:db8::1".parse().unwrap()] {
            let message = answer(to);
            assert!(is_answer(&message, to, 0x1234, &NONCE, 0));
            assert!(!is_answer(&request(to, 0x1234, &NONCE, 0), to, 0x1234, &NONCE, 0), "one's own request");
            for at in (0..message.len()).filter(|at| ![2, 3].contains(at)) {
                let mut other = message.clone();
                other[at] ^= 1;
                assert!(!is_answer(&other, to, 0x1234, &NONCE, 0), "byte {at}");
            }
            for length in 0..message.len() {
                assert!(!is_answer(&message[..length], to, 0x1234, &NONCE, 0), "{length} bytes");
            }
        }
    }

    #[test]
    fn an_ip_header_with_options_is_skipped_and_a_short_one_is_none() {
        let datagram = [vec![0x46; 24], answer(TO)].concat();
        assert_eq!(behind_ip_header(&datagram), Some(answer(TO).as_slice()));
        assert_eq!(behind_ip_header(&datagram[..23]), None);
        assert_eq!(behind_ip_header(&[]), None);
    }
}
