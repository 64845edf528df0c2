//! AF_PACKET sockets, for frames that the kernel's own ARP must not send or answer.

use std::io::{self, Read};

use socket2::{Domain, Protocol, SockAddr, Socket, Type};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::Mac;
use crate::arp::{ArpPacket, FRAME_LEN};

/// `ETH_P_ARP` as `sll_protocol` wants it.
const ARP: u16 = (libc::ETH_P_ARP as u16).to_be();

/// A socket that sends on any link and receives nothing: protocol 0 registers no tap.
pub(crate) fn sender() -> io::Result<Socket> {
    open()
}

/// Receives the ARP frames of one link, from its opening on, and sends on the same link.
pub(crate) struct ArpTap {
    socket: AsyncFd<Socket>,
    ifindex: u32,
}

impl ArpTap {
    /// Must be called within a tokio runtime.
    pub(crate) fn open(ifindex: u32) -> io::Result<Self> {
        // Opened with protocol 0 and bound with ARP: otherwise the frames of all other links would
        // arrive until the bind.
        let socket = open()?;
        socket.bind(&link_address(ifindex, ARP, [0; 6])?)?;
        // SAFETY: `Socket` owns its descriptor, and nobody takes it out of the `AsyncFd`.
        #[allow(unsafe_code)]
        let socket = unsafe { AsyncFd::register(socket) }?;
        Ok(ArpTap { socket, ifindex })
    }

    /// The next frame; `None` for one that is no ARP for IPv4. Nothing is lost when it is cancelled.
    pub(crate) async fn receive(&self) -> io::Result<Option<ArpPacket>> {
        let mut frame = [0; FRAME_LEN];
        let length = self.socket.async_io(Interest::READABLE, |mut socket| socket.read(&mut frame)).await?;
        Ok(ArpPacket::parse(&frame[..length]))
    }

    pub(crate) fn send(&self, packet: &ArpPacket) -> io::Result<()> {
        send(self.socket.get_ref(), self.ifindex, packet)
    }
}

/// Sends one frame out of `ifindex`. A full queue is an error, never a wait.
pub(crate) fn send(socket: &Socket, ifindex: u32, packet: &ArpPacket) -> io::Result<()> {
    let frame = packet.to_bytes();
    let sent = socket.send_to(&frame, &link_address(ifindex, ARP, packet.destination)?)?;
    if sent == frame.len() { Ok(()) } else { Err(io::ErrorKind::WriteZero.into()) }
}

fn open() -> io::Result<Socket> {
    Socket::new(Domain::PACKET, Type::RAW.nonblocking(), None::<Protocol>)
}

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
