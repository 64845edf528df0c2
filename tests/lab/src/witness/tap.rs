//! Taps: AF_PACKET sockets on the switch's side of each cable, and on each node behind the filter. One thread
//! reads them all. Frames that the kernel had to drop for us are counted: then nothing is proved.
#![expect(unsafe_code, reason = "SO_ATTACH_FILTER and PACKET_STATISTICS have no safe wrapper")]

use std::collections::BTreeMap;
use std::io::IoSliceMut;
use std::net::IpAddr;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{
    AddressFamily, ControlMessageOwned, LinkAddr, MsgFlags, SockFlag, SockProtocol, SockType, recvmsg,
    setsockopt, socket, sockopt,
};
use nix::sys::time::TimeSpec;
use nix::time::ClockId;

use super::frame::Frame;
use super::time::{BootTime, nanoseconds};
use crate::lab::Lab;
use crate::names::{Network, Place};
use crate::shell;

/// Headers only: Ethernet, the longest IPv4 header or some extension headers of IPv6, the shortest TCP header, and what
/// an error quotes of these.
const SNAP: usize = 256;
/// Room for a second of frames at ten times the rate of any test.
const RECEIVE_BUFFER: usize = 32 << 20;

/// Where a frame was seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Side {
    /// On the switch's end of the cable: what arrives at the filter, and what really leaves.
    Cable,
    /// On the machine's own interface: what the filter passed, and what the machine sends.
    Machine,
}

/// Which way a frame went.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Heading {
    /// To the machine.
    Arriving,
    /// From the machine.
    Leaving,
}

/// A frame, where and when it was seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sighting {
    /// When.
    pub at: BootTime,
    /// On whose cable.
    pub place: Place,
    /// On which end.
    pub side: Side,
    /// Which way.
    pub heading: Heading,
    /// What.
    pub frame: Frame,
}

/// Everything that a witness saw, in order of time.
#[derive(Clone, Debug, Default)]
pub struct Testimony {
    /// What was seen.
    pub sightings: Vec<Sighting>,
    /// Frames that the kernel could not keep for us.
    pub lost: u64,
}

impl Testimony {
    /// Frames to `vip` that arrived at `place` from `from` until `until` and are new TCP connections.
    pub fn syns(&self, place: Place, vip: IpAddr, from: BootTime, until: BootTime) -> usize {
        let here =
            |s: &&Sighting| s.place == place && s.side == Side::Cable && s.heading == Heading::Arriving;
        let then = |s: &&Sighting| (from..=until).contains(&s.at);
        self.sightings
            .iter()
            .filter(here)
            .filter(then)
            .filter(|s| super::acceptance::is_syn_to(s, vip))
            .count()
    }
}

/// A witness at work: sees ARP, IPv4 to or from the virtual IPs, and all of IPv6, which the farm itself does not speak.
#[derive(Debug)]
pub struct Witness {
    seen: Arc<Mutex<Vec<Sighting>>>,
    stop: OwnedFd,
    thread: JoinHandle<Result<u64>>,
}

impl Witness {
    /// Takes up its posts.
    ///
    /// # Errors
    /// A tap cannot be opened.
    pub fn start(lab: &Lab, vips: &[IpAddr]) -> Result<Self> {
        let taps = taps(lab, vips)?;
        let seen = Arc::new(Mutex::new(Vec::new()));
        let (listen, stop) = nix::unistd::pipe2(OFlag::O_CLOEXEC).context("pipe")?;
        let book = Arc::clone(&seen);
        let thread = std::thread::Builder::new().name("witness".into());
        let thread = thread.spawn(move || watch(&taps, &listen, &book)).context("the witness's thread")?;
        Ok(Self { seen, stop, thread })
    }

    /// What was seen so far, unsorted, frames in the kernel's buffers excepted.
    #[must_use]
    pub fn so_far(&self) -> Vec<Sighting> {
        lock(&self.seen).clone()
    }

    /// Waits until a sighting satisfies `wanted` and returns it.
    ///
    /// # Errors
    /// None does within `limit`.
    pub fn await_sighting(
        &self,
        what: &str,
        limit: Duration,
        wanted: impl Fn(&Sighting) -> bool,
    ) -> Result<Sighting> {
        let mut checked = 0;
        shell::await_value(what, limit, || {
            let seen = lock(&self.seen);
            let found = seen[checked..].iter().find(|s| wanted(s)).copied();
            checked = seen.len();
            Ok(found)
        })
    }

    /// Ends the watch with everything that reached the taps until now.
    ///
    /// # Errors
    /// A tap failed meanwhile.
    pub fn stop(self) -> Result<Testimony> {
        drop(self.stop);
        let lost = self.thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
        let mut sightings = std::mem::take(&mut *lock(&self.seen));
        sightings.sort_by_key(|s| s.at);
        Ok(Testimony { sightings, lost })
    }
}

/// A panic of another holder leaves a whole list behind: pushing is all anybody does.
fn lock(seen: &Mutex<Vec<Sighting>>) -> MutexGuard<'_, Vec<Sighting>> {
    seen.lock().unwrap_or_else(PoisonError::into_inner)
}

/// One namespace's socket and the interfaces that matter in it.
struct Tap {
    socket: OwnedFd,
    interfaces: BTreeMap<usize, Place>,
    side: Side,
}

fn taps(lab: &Lab, vips: &[IpAddr]) -> Result<Vec<Tap>> {
    let on_the_link: Vec<Place> = Place::all(lab.spec().nodes).filter(|p| p.host().is_some()).collect();
    let ports = on_the_link.iter().map(|p| (Network::Lan.port(*p), *p)).collect();
    let mut taps = vec![open(lab, Place::Switch, ports, Side::Cable, vips)?];
    for node in lab.nodes() {
        let own = vec![(Network::Lan.interface().to_owned(), node)];
        taps.push(open(lab, node, own, Side::Machine, vips)?);
    }
    Ok(taps)
}

fn open(lab: &Lab, inside: Place, names: Vec<(String, Place)>, side: Side, vips: &[IpAddr]) -> Result<Tap> {
    let filter = filter(vips);
    lab.namespace(inside).run(|| {
        let index =
            |name: &str| nix::net::if_::if_nametoindex(name).with_context(|| format!("{name} of {inside}"));
        let interfaces = names.iter().map(|(name, place)| Ok((index(name)? as usize, *place)));
        let interfaces = interfaces.collect::<Result<_>>()?;
        let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
        let socket =
            socket(AddressFamily::Packet, SockType::Raw, flags, SockProtocol::EthAll).context("AF_PACKET")?;
        attach(&socket, &filter)?;
        setsockopt(&socket, sockopt::RcvBufForce, &RECEIVE_BUFFER).context("SO_RCVBUFFORCE")?;
        setsockopt(&socket, sockopt::ReceiveTimestampns, &true).context("SO_TIMESTAMPNS")?;
        Ok(Tap { socket, interfaces, side })
    })
}

/// ARP, IPv6, and IPv4 to or from a virtual IP; the first [`SNAP`] bytes of it. (Classic BPF: code, jt, jf, k.)
fn filter(vips: &[IpAddr]) -> Vec<libc::sock_filter> {
    const LOAD_HALF: u16 = 0x28;
    const LOAD_WORD: u16 = 0x20;
    const JUMP_IF_EQUAL: u16 = 0x15;
    const RETURN: u16 = 0x06;
    let step = |code, jt, jf, k| libc::sock_filter { code, jt, jf, k };
    let vips: Vec<u32> = vips.iter().filter_map(of_ipv4).collect();
    let count = u8::try_from(vips.len()).expect("a lab has fewer than 28 virtual IPs");
    // Steps: type, ARP?, IPv6?, IPv4?, source, n tests, destination, n tests, refuse, accept.
    let accept = 2 * count + 7;
    let mut program = vec![
        step(LOAD_HALF, 0, 0, 12),
        step(JUMP_IF_EQUAL, accept - 2, 0, 0x0806),
        step(JUMP_IF_EQUAL, accept - 3, 0, 0x86dd),
        step(JUMP_IF_EQUAL, 0, accept - 5, 0x0800),
    ];
    for offset in [26, 30] {
        program.push(step(LOAD_WORD, 0, 0, offset));
        for vip in &vips {
            let here = u8::try_from(program.len()).expect("below 64 steps");
            program.push(step(JUMP_IF_EQUAL, accept - here - 1, 0, *vip));
        }
    }
    program.push(step(RETURN, 0, 0, 0));
    program.push(step(RETURN, 0, 0, SNAP as u32));
    program
}

fn of_ipv4(ip: &IpAddr) -> Option<u32> {
    match ip {
        IpAddr::V4(ip) => Some(u32::from(*ip)),
        IpAddr::V6(_) => None,
    }
}

fn attach(socket: &OwnedFd, filter: &[libc::sock_filter]) -> Result<()> {
    let length = u16::try_from(filter.len()).context("filter too long")?;
    let program = libc::sock_fprog { len: length, filter: filter.as_ptr().cast_mut() };
    // SAFETY: the kernel copies `len` instructions from `filter`, which lives until the call returns.
    let done = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_ATTACH_FILTER,
            (&raw const program).cast(),
            size_of_val(&program) as libc::socklen_t,
        )
    };
    Errno::result(done).context("SO_ATTACH_FILTER").map(drop)
}

/// Frames that the kernel dropped since the last call.
fn dropped(socket: &OwnedFd) -> Result<u64> {
    let mut statistics = libc::tpacket_stats { tp_packets: 0, tp_drops: 0 };
    let mut length = size_of_val(&statistics) as libc::socklen_t;
    // SAFETY: the kernel writes at most `length` bytes into `statistics`, which is that long.
    let done = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_PACKET,
            libc::PACKET_STATISTICS,
            (&raw mut statistics).cast(),
            &raw mut length,
        )
    };
    Errno::result(done).context("PACKET_STATISTICS")?;
    Ok(u64::from(statistics.tp_drops))
}

/// Reads until the other end of `stop` is closed and the sockets are empty; the number of lost frames.
fn watch(taps: &[Tap], stop: &OwnedFd, book: &Mutex<Vec<Sighting>>) -> Result<u64> {
    loop {
        let sockets = taps.iter().map(|tap| tap.socket.as_fd());
        let mut fds: Vec<PollFd> =
            sockets.chain([stop.as_fd()]).map(|fd| PollFd::new(fd, PollFlags::POLLIN)).collect();
        match poll(&mut fds, PollTimeout::NONE) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(e) => return Err(e).context("poll on the taps"),
        }
        let stopped = fds.last().and_then(PollFd::any).unwrap_or(false);
        taps.iter().try_for_each(|tap| read_all(tap, book))?;
        if stopped {
            return taps.iter().map(|tap| dropped(&tap.socket)).sum();
        }
    }
}

fn read_all(tap: &Tap, book: &Mutex<Vec<Sighting>>) -> Result<()> {
    // Frames are stamped in real time; the two clocks drift apart by microseconds at most within one reading.
    let boot_minus_real =
        nanoseconds(ClockId::CLOCK_BOOTTIME).wrapping_sub(nanoseconds(ClockId::CLOCK_REALTIME));
    let mut buffer = [0; SNAP];
    let mut control = nix::cmsg_space!(TimeSpec);
    let mut found = Vec::new();
    loop {
        let mut parts = [IoSliceMut::new(&mut buffer)];
        let message = recvmsg::<LinkAddr>(
            tap.socket.as_raw_fd(),
            &mut parts,
            Some(&mut control),
            MsgFlags::MSG_DONTWAIT,
        );
        let message = match message {
            Ok(message) => message,
            Err(Errno::EAGAIN) => break,
            // An interface went down: the socket says so once and goes on.
            Err(Errno::ENETDOWN | Errno::EINTR) => continue,
            Err(e) => return Err(e).context("reading a tap"),
        };
        let Some(address) = message.address else { continue };
        let stamp = message.cmsgs().ok().into_iter().flatten().find_map(|c| match c {
            ControlMessageOwned::ScmTimestampns(time) => u64::try_from(Duration::from(time).as_nanos()).ok(),
            _ => None,
        });
        let at = stamp.map_or_else(BootTime::now, |real| BootTime(real.wrapping_add(boot_minus_real)));
        let bytes = message.bytes;
        found.extend(tap.sighting(at, &address, &buffer[..bytes]));
    }
    lock(book).extend(found);
    Ok(())
}

impl Tap {
    fn sighting(&self, at: BootTime, address: &LinkAddr, bytes: &[u8]) -> Option<Sighting> {
        let place = *self.interfaces.get(&address.ifindex())?;
        let sent = address.pkttype() == libc::PACKET_OUTGOING;
        // What the switch sends out of a port arrives at the machine.
        let heading = if sent == (self.side == Side::Cable) { Heading::Arriving } else { Heading::Leaving };
        Some(Sighting { at, place, side: self.side, heading, frame: Frame::parse(bytes)? })
    }
}
