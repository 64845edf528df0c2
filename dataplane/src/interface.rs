//! Asking the kernel about an interface: rtnetlink for what is attached, ethtool for the driver.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use netlink_packet_core::{NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{LinkAttribute, LinkMessage, LinkXdp};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};

/// An interface as the kernel describes it now.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Interface {
    pub(crate) ifindex: u32,
    pub(crate) name: String,
    pub(crate) mac: [u8; 6],
    /// Ids of the XDP programs attached to it, in any mode.
    pub(crate) programs: Vec<u32>,
    /// Those of them that the driver or the card runs.
    pub(crate) native: Vec<u32>,
    /// The interface that it is bound to (the other end of a veth, what is below a VLAN), where it has one.
    pub(crate) bound: Option<Bound>,
}

/// Where the interface is that another one is bound to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Bound {
    /// In the same network namespace.
    Here(u32),
    /// In another one.
    Elsewhere,
}

/// A question socket; it belongs to the network namespace it was opened in, whoever uses it.
pub(crate) struct Netlink(Socket);

impl Netlink {
    pub(crate) fn open() -> io::Result<Self> {
        let mut socket = Socket::new(NETLINK_ROUTE)?;
        socket.bind_auto()?;
        socket.connect(&SocketAddr::new(0, 0))?;
        Ok(Self(socket))
    }

    pub(crate) fn by_index(&mut self, ifindex: u32) -> io::Result<Option<Interface>> {
        let mut request = LinkMessage::default();
        request.header.index = ifindex;
        self.ask(request)
    }

    pub(crate) fn by_name(&mut self, name: &str) -> io::Result<Option<Interface>> {
        let mut request = LinkMessage::default();
        request.attributes.push(LinkAttribute::IfName(name.to_owned()));
        self.ask(request)
    }

    /// One question, one answer: nothing else is ever sent on this socket, and it joins no group.
    fn ask(&mut self, request: LinkMessage) -> io::Result<Option<Interface>> {
        self.0.send(&encode(request), 0)?;
        let (answer, _) = self.0.recv_from_full()?;
        let answer = NetlinkMessage::<RouteNetlinkMessage>::deserialize(&answer).map_err(io::Error::other)?;
        match answer.payload {
            NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewLink(link)) => Ok(Some(parse(link))),
            NetlinkPayload::Error(error) => absent(error.to_io()),
            other => Err(io::Error::other(format!("unexpected answer to RTM_GETLINK: {other:?}"))),
        }
    }
}

fn absent(error: io::Error) -> io::Result<Option<Interface>> {
    if error.raw_os_error() == Some(libc::ENODEV) { Ok(None) } else { Err(error) }
}

fn encode(request: LinkMessage) -> Vec<u8> {
    let payload = NetlinkPayload::from(RouteNetlinkMessage::GetLink(request));
    let mut message = NetlinkMessage::new(NetlinkHeader::default(), payload);
    message.header.flags = NLM_F_REQUEST;
    message.finalize();
    let mut bytes = vec![0; message.buffer_len()];
    message.serialize(&mut bytes);
    bytes
}

fn parse(link: LinkMessage) -> Interface {
    let mut found = Interface {
        ifindex: link.header.index,
        name: String::new(),
        mac: [0; 6],
        programs: Vec::new(),
        native: Vec::new(),
        bound: None,
    };
    let elsewhere = link.attributes.iter().any(|a| matches!(a, LinkAttribute::LinkNetNsId(_)));
    for attribute in link.attributes {
        match attribute {
            LinkAttribute::IfName(name) => found.name = name,
            LinkAttribute::Address(bytes) => found.mac = bytes.try_into().unwrap_or_default(),
            LinkAttribute::Xdp(xdp) => {
                found.programs = xdp.iter().filter_map(program_id).collect();
                found.native = xdp.iter().filter_map(native_id).collect();
            }
            LinkAttribute::Link(index) => {
                found.bound = Some(if elsewhere { Bound::Elsewhere } else { Bound::Here(index) });
            }
            _ => {}
        }
    }
    found.programs.sort_unstable();
    found.programs.dedup();
    found
}

fn program_id(xdp: &LinkXdp) -> Option<u32> {
    match xdp {
        LinkXdp::ProgId(id) | LinkXdp::DrvProgId(id) | LinkXdp::SkbProgId(id) | LinkXdp::HwProgId(id) => {
            Some(*id)
        }
        _ => None,
    }
}

fn native_id(xdp: &LinkXdp) -> Option<u32> {
    match xdp {
        LinkXdp::DrvProgId(id) | LinkXdp::HwProgId(id) => Some(*id),
        _ => None,
    }
}

/// The driver of `interface` in the network namespace of the calling thread, as `ethtool -i` prints it.
pub(crate) fn driver(interface: &str) -> io::Result<String> {
    let any = socket(AddressFamily::Inet, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)?;
    let mut info = DriverInfo::new();
    let name = CString::new(interface)?;
    let mut request = Request { name: [0; libc::IFNAMSIZ], data: &raw mut info, rest: [0; 16] };
    let bytes = name.as_bytes();
    let room = request.name.get_mut(..bytes.len()).ok_or(io::ErrorKind::InvalidInput)?;
    room.copy_from_slice(bytes);
    ethtool(&any, &mut request)?;
    let length = info.driver.iter().position(|byte| *byte == 0).unwrap_or(info.driver.len());
    Ok(String::from_utf8_lossy(&info.driver[..length]).into_owned())
}

/// `struct ifreq` with a pointer as its argument.
#[repr(C)]
struct Request {
    name: [u8; libc::IFNAMSIZ],
    data: *mut DriverInfo,
    /// The union of `struct ifreq` is longer than a pointer.
    rest: [u8; 16],
}

/// `struct ethtool_drvinfo`.
#[repr(C)]
struct DriverInfo {
    cmd: u32,
    driver: [u8; 32],
    rest: [u8; 160],
}

impl DriverInfo {
    const GET: u32 = 3;

    const fn new() -> Self {
        Self { cmd: Self::GET, driver: [0; 32], rest: [0; 160] }
    }
}

fn ethtool(socket: &OwnedFd, request: &mut Request) -> io::Result<()> {
    const SIOCETHTOOL: libc::Ioctl = 0x8946;
    // SAFETY: the request has the layout of `struct ifreq`, its pointer that of `struct ethtool_drvinfo`; both
    // live through the call.
    let code = unsafe { libc::ioctl(socket.as_raw_fd(), SIOCETHTOOL, std::ptr::from_mut(request)) };
    if code == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
