//! A VLAN interface in user space: not every kernel has its own. Two threads put the tag on and take it off between an
//! interface and one end of a veth pair, whose other end is the VLAN's interface.

use std::io::{self, ErrorKind};
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result};
use farm_lab::topology::mac_text;
use farm_lab::{Lab, Network, Place, shell};
use nix::ifaddrs::getifaddrs;
use nix::sys::socket::{LinkAddr, MsgFlags, sendto};
use socket2::{Domain, Protocol, SockFilter, Socket, Type};

/// `ETH_P_ALL`, in network order.
const ALL: i32 = 0x0300;
/// Longest frame, with room for a tag.
const FRAME: usize = 2048;
/// How long a thread that hears nothing takes to see that it should end.
const LOOK: Duration = Duration::from_millis(50);

/// Lives as long as this value.
#[derive(Debug)]
pub struct VlanInterface {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl VlanInterface {
    /// Makes `eth0.ID` of `place`, with the hardware address of `eth0` and this address.
    ///
    /// # Errors
    /// The kernel refuses a step.
    pub fn make(lab: &Lab, place: Place, id: u16, address: &str) -> Result<Self> {
        let (device, inner) = (format!("eth0.{id}"), format!("inner{id}"));
        let mac = mac_text(place.mac(Network::Lan).context("it is on the link")?);
        let namespace = lab.namespace(place);
        namespace.ip(&format!(
            "link add name {device} type veth peer name {inner}\nlink set dev {device} address {mac}\n\
             link set dev {inner} up\nlink set dev {device} up\naddr add {address} dev {device}\n"
        ))?;
        // Nobody but the cable would fill checksums in.
        shell::run(namespace.command("ethtool")?.args(["-K", &device, "tx", "off"]))?;
        let pair = || Ok((Wire::open("eth0", Some(id))?, Wire::open(&inner, None)?));
        let (outside, inside) = namespace.run(pair)?;
        let (stop, outside, inside) = (Arc::<AtomicBool>::default(), Arc::new(outside), Arc::new(inside));
        let inwards = carry(&stop, outside.clone(), inside.clone(), |frame| frame.to_vec());
        let tag = [0x8100_u16.to_be_bytes(), id.to_be_bytes()].concat();
        let outwards =
            carry(&stop, inside, outside, move |frame| [&frame[..12], tag.as_slice(), &frame[12..]].concat());
        Ok(Self { stop, threads: vec![inwards, outwards] })
    }
}

impl Drop for VlanInterface {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        // A thread that panicked has said so already.
        self.threads.drain(..).for_each(|thread| drop(thread.join()));
    }
}

/// What comes in on one interface, and a way out of it.
struct Wire {
    socket: Socket,
    address: LinkAddr,
}

impl Wire {
    /// In the namespace of the calling thread: only frames with this tag, or all.
    fn open(name: &str, id: Option<u16>) -> Result<Self> {
        let addresses = getifaddrs().context("getifaddrs")?.filter(|a| a.interface_name == name);
        let link = addresses.filter_map(|a| a.address?.as_link_addr().copied()).next();
        let address = link.with_context(|| format!("{name} has no hardware address"))?;
        let socket = Socket::new(Domain::PACKET, Type::RAW, Some(Protocol::from(ALL)))?;
        let ifindex = u32::try_from(address.ifindex())?;
        socket.attach_filter(&incoming(ifindex, id))?;
        socket.set_read_timeout(Some(LOOK))?;
        Ok(Self { socket, address })
    }

    fn receive(&self, frame: &mut [u8]) -> io::Result<Option<usize>> {
        match io::Read::read(&mut &self.socket, frame) {
            Ok(length) => Ok(Some(length)),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

/// Classic BPF: what comes in on this interface, and with `id` only with that tag, which the kernel has taken off the
/// data by now. What this machine sends is left out. (`SKF_AD_PKTTYPE`, `SKF_AD_IFINDEX`, `SKF_AD_VLAN_TAG_PRESENT`, `SKF_AD_VLAN_TAG`, linux/filter.h.)
fn incoming(ifindex: u32, id: Option<u16>) -> Vec<SockFilter> {
    const LOAD: u16 = 0x20;
    const AND: u16 = 0x54;
    const EQUAL: u16 = 0x15;
    const RETURN: u16 = 0x06;
    const OUTGOING: u32 = 4;
    let about = |what: u32| SockFilter::new(LOAD, 0, 0, (-0x1000_i32).cast_unsigned() + what);
    let give = |bytes: u32| SockFilter::new(RETURN, 0, 0, bytes);
    let mut program = vec![
        about(4),
        SockFilter::new(EQUAL, 0, 1, OUTGOING),
        give(0),
        about(8),
        SockFilter::new(EQUAL, 1, 0, ifindex),
        give(0),
    ];
    if let Some(id) = id {
        program.extend([
            about(48),
            SockFilter::new(EQUAL, 0, 3, 1),
            about(44),
            SockFilter::new(AND, 0, 0, 0xfff),
        ]);
        program.extend([SockFilter::new(EQUAL, 1, 0, id.into()), give(0)]);
    }
    program.push(give(FRAME as u32));
    program
}

fn carry(
    stop: &Arc<AtomicBool>,
    from: Arc<Wire>,
    to: Arc<Wire>,
    change: impl Fn(&[u8]) -> Vec<u8> + Send + 'static,
) -> JoinHandle<()> {
    let stop = Arc::clone(stop);
    std::thread::spawn(move || {
        let mut frame = [0; FRAME];
        while !stop.load(Ordering::Relaxed) {
            match from.receive(&mut frame) {
                // A frame that cannot leave is lost, as on any cable.
                Ok(Some(length)) if length >= 14 => {
                    let _ = sendto(
                        to.socket.as_raw_fd(),
                        &change(&frame[..length]),
                        &to.address,
                        MsgFlags::empty(),
                    );
                }
                Ok(_) => {}
                // The machine is off.
                Err(_) => return,
            }
        }
    })
}
