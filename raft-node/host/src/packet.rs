//! AF_PACKET sockets, for frames that the kernel itself must not send or answer.

use std::io::{self, Read};

use libc::{BPF_ABS, BPF_B, BPF_JEQ, BPF_JMP, BPF_K, BPF_LD, BPF_RET};
use socket2::{Domain, Protocol, SockAddr, SockFilter, Socket, Type};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::Mac;

/// Longest frame that is read whole: without jumbo frames. Neighbours are told in far shorter ones.
pub(crate) const FRAME_MAX: usize = 1514;

/// Only neighbour advertisements: otherwise all IPv6 traffic of the link would fill the socket, and
/// what matters be lost.
const ADVERTISEMENTS: [SockFilter; 6] = {
    const LOAD_BYTE: u32 = BPF_LD | BPF_B | BPF_ABS;
    const SKIP_UNLESS: u32 = BPF_JMP | BPF_JEQ | BPF_K;
    const RETURN: u32 = BPF_RET | BPF_K;
    [
        // The next header of IPv6 behind the Ethernet header: ICMPv6.
        SockFilter::new(LOAD_BYTE as u16, 0, 0, 14 + 6),
        SockFilter::new(SKIP_UNLESS as u16, 0, 3, 58),
        // The type of the message behind the IPv6 header: an advertisement.
        SockFilter::new(LOAD_BYTE as u16, 0, 0, 14 + 40),
        SockFilter::new(SKIP_UNLESS as u16, 0, 1, 136),
        SockFilter::new(RETURN as u16, 0, 0, u32::MAX),
        SockFilter::new(RETURN as u16, 0, 0, 0),
    ]
};

/// A socket that sends on any link and receives nothing: protocol 0 registers no tap.
pub(crate) fn sender() -> io::Result<Socket> {
    Socket::new(Domain::PACKET, Type::RAW.nonblocking(), None::<Protocol>)
}

/// Receives the frames of one protocol that come in on one link, from its opening on, and sends on
/// the same link.
pub(crate) struct Tap {
    socket: AsyncFd<Socket>,
    ifindex: u32,
}

impl Tap {
    /// For ARP. Must be called within a tokio runtime.
    pub(crate) fn arp(ifindex: u32) -> io::Result<Self> {
        Self::open(sender()?, ifindex, libc::ETH_P_ARP)
    }

    /// For neighbour advertisements. Must be called within a tokio runtime.
    pub(crate) fn advertisements(ifindex: u32) -> io::Result<Self> {
        let socket = sender()?;
        socket.attach_filter(&ADVERTISEMENTS)?;
        Self::open(socket, ifindex, libc::ETH_P_IPV6)
    }

    /// `socket` was opened with protocol 0 and is bound here: otherwise the frames of all other
    /// links would arrive until the bind.
    fn open(socket: Socket, ifindex: u32, ethertype: i32) -> io::Result<Self> {
        bind(&socket, ifindex, ethertype)?;
        // SAFETY: `Socket` owns its descriptor, and nobody takes it out of the `AsyncFd`.
        #[allow(unsafe_code)]
        let socket = unsafe { AsyncFd::register(socket) }?;
        Ok(Tap { socket, ifindex })
    }

    /// Writes the next frame into `buffer` and returns its length there. Nothing is lost when it is
    /// cancelled.
    pub(crate) async fn receive(&self, buffer: &mut [u8; FRAME_MAX]) -> io::Result<usize> {
        self.socket.async_io(Interest::READABLE, |mut socket| socket.read(buffer)).await
    }

    pub(crate) fn send(&self, frame: &[u8]) -> io::Result<()> {
        send(self.socket.get_ref(), self.ifindex, frame)
    }
}

/// From now on `socket`, opened with protocol 0, receives the frames of one protocol that are seen on one link.
pub(crate) fn bind(socket: &Socket, ifindex: u32, ethertype: i32) -> io::Result<()> {
    socket.bind(&link_address(ifindex, (ethertype as u16).to_be(), [0; 6])?)
}

/// Sends one frame out of `ifindex`. A full queue is an error, never a wait.
pub(crate) fn send(socket: &Socket, ifindex: u32, frame: &[u8]) -> io::Result<()> {
    let [d0, d1, d2, d3, d4, d5, _, _, _, _, _, _, e0, e1] =
        *frame.first_chunk::<14>().ok_or(io::ErrorKind::InvalidInput)?;
    let to = link_address(ifindex, u16::from_ne_bytes([e0, e1]), [d0, d1, d2, d3, d4, d5])?;
    let sent = socket.send_to(frame, &to)?;
    if sent == frame.len() { Ok(()) } else { Err(io::ErrorKind::WriteZero.into()) }
}

/// `protocol` in the order of transmission.
fn link_address(ifindex: u32, protocol: u16, mac: Mac) -> io::Result<SockAddr> {
    let sll_ifindex = ifindex.try_into().map_err(|_| io::ErrorKind::InvalidInput)?;
    let mut sll_addr = [0; 8];
    sll_addr[..6].copy_from_slice(&mac);
    let address = libc::sockaddr_ll {
        sll_family: libc::AF_PACKET as libc::sa_family_t,
        sll_protocol: protocol,
        sll_ifindex,
        sll_hatype: 0,
        sll_pkttype: 0,
        sll_halen: 6,
        sll_addr,
    };
    // SAFETY: sockaddr_storage is larger than, and aligned for, every sockaddr; `address` is plain
    // data, and the length written is its own.
    #[allow(unsafe_code)]
    let ((), address) = unsafe {
        SockAddr::try_init(|storage, length| {
            storage.cast::<libc::sockaddr_ll>().write(address);
            *length = size_of::<libc::sockaddr_ll>() as libc::socklen_t;
            Ok(())
        })?
    };
    Ok(address)
}
