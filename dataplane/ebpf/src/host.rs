//! What the decision asks of the kernel.

use core::ffi::c_void;
use core::mem::size_of;

use aya_ebpf::EbpfContext;
use aya_ebpf::bindings::{
    BPF_F_CURRENT_NETNS, BPF_TCP_ESTABLISHED, BPF_TCP_LISTEN, BPF_TCP_TIME_WAIT, bpf_sock, bpf_sock_tuple,
    bpf_sock_tuple__bindgen_ty_1, bpf_sock_tuple__bindgen_ty_1__bindgen_ty_1 as tuple_v4,
    bpf_sock_tuple__bindgen_ty_1__bindgen_ty_2 as tuple_v6, tcphdr, xdp_md,
};
use aya_ebpf::helpers::generated::{
    bpf_ktime_get_boot_ns, bpf_sk_lookup_udp, bpf_sk_release, bpf_skc_lookup_tcp, bpf_tcp_check_syncookie,
};
use aya_ebpf::programs::XdpContext;
use farm_common::bytes::{Bytes, Window};
use farm_common::decide::Env;
use farm_common::flow::{Address, Family, Flow, Kind, protocol};
use farm_common::layout::{Port, Slot};
use farm_common::parse::Ethernet;
use farm_common::verdict::{BootTime, Socket};

use crate::packet::{Packet, afresh};
use crate::{flows, maps};

/// Length of the headers without options, as the cookie check wants them.
const IPV4_HEADER: usize = 20;
const IPV6_HEADER: usize = 40;
const TCP_HEADER: usize = 20;

/// The kernel, during one run.
pub struct Host<'a> {
    /// The run.
    pub ctx: &'a XdpContext,
    /// The table in force.
    pub slot: &'a Slot,
    /// Where the frame came in.
    pub port: &'a Port,
}

impl Env for Host<'_> {
    #[inline(always)]
    fn now(&self) -> BootTime {
        // SAFETY: the helper has no arguments and is allowed in XDP programs since 5.8.
        BootTime(unsafe { bpf_ktime_get_boot_ns() })
    }

    #[inline(always)]
    fn socket(&self, _: &Flow) -> Socket {
        match ask(self.ctx.ctx, self.slot, self.port) {
            FLOW => Socket::Flow,
            TIME_WAIT => Socket::TimeWait,
            COOKIE => Socket::Listener { cookie: true },
            LISTENER => Socket::Listener { cookie: false },
            _ => Socket::None,
        }
    }
}

/// What there is for the packet that was read. Out of line: the decision asks at ten places, and each copy would cost
/// registers and stack also on the paths that never ask.
#[inline(never)]
fn ask(ctx: *mut xdp_md, slot: &Slot, port: &Port) -> u32 {
    let Some(flow) = maps::reading().and_then(|reading| reading.flow_to(slot)) else { return NONE };
    // What is not remembered may still have a socket here: one from before the service's listener closed.
    if port.remembers != 0 && flows::recall(&flow) == flows::HELD {
        return FLOW;
    }
    let (tuple, size) = tuple(&flow);
    let (ctx, tuple) = (afresh(ctx).cast(), &raw const tuple);
    if flow.protocol == protocol::UDP {
        look_up_udp(ctx, tuple, size)
    } else {
        look_up(ctx, tuple, size, flow.kind == Kind::Segment)
    }
}

/// The flow as the look-up wants it, and how many bytes of it count.
#[inline(always)]
fn tuple(flow: &Flow) -> (bpf_sock_tuple, u32) {
    let (sport, dport) = (flow.client_port.to_be(), flow.service_port.to_be());
    // Zeroed as a whole: the verifier wants to see every byte of it written.
    let mut tuple = bpf_sock_tuple {
        __bindgen_anon_1: bpf_sock_tuple__bindgen_ty_1 {
            ipv6: tuple_v6 { saddr: [0; 4], daddr: [0; 4], sport: 0, dport: 0 },
        },
    };
    let size = match flow.vip.family() {
        Family::V4 => {
            let (saddr, daddr) = (u32::from_ne_bytes(flow.client.low()), u32::from_ne_bytes(flow.vip.low()));
            tuple.__bindgen_anon_1.ipv4 = tuple_v4 { saddr, daddr, sport, dport };
            size_of::<tuple_v4>()
        }
        Family::V6 => {
            let (saddr, daddr) = (words(&flow.client), words(&flow.vip));
            tuple.__bindgen_anon_1.ipv6 = tuple_v6 { saddr, daddr, sport, dport };
            size_of::<tuple_v6>()
        }
    };
    (tuple, size as u32)
}

/// The address as four words, each as it lies in memory.
#[inline(always)]
fn words(address: &Address) -> [u32; 4] {
    let [high, low] = address.words().map(u64::from_le);
    [high as u32, (high >> 32) as u32, low as u32, (low >> 32) as u32].map(u32::from_le)
}

/// What [`ask`] found, as a number: a function of its own gives back nothing else.
const NONE: u32 = 0;
const FLOW: u32 = 1;
const TIME_WAIT: u32 = 2;
const LISTENER: u32 = 3;
const COOKIE: u32 = 4;

/// What TCP has. `size` bytes of the tuple count.
#[inline(always)]
fn look_up(ctx: *mut c_void, tuple: *const bpf_sock_tuple, size: u32, cookies: bool) -> u32 {
    // SAFETY: context and tuple live through the call, and `size` bytes of the tuple are initialised.
    let socket = unsafe { bpf_skc_lookup_tcp(ctx, tuple.cast_mut(), size, BPF_F_CURRENT_NETNS as u64, 0) };
    if socket.is_null() {
        return NONE;
    }
    let found = examine(ctx, socket, cookies);
    // SAFETY: a reference that the look-up gave us, released once and not used afterwards.
    unsafe { bpf_sk_release(socket.cast()) };
    found
}

/// The same for UDP. The kernel finds a connected socket only for the very flow that it is connected to.
#[inline(always)]
fn look_up_udp(ctx: *mut c_void, tuple: *const bpf_sock_tuple, size: u32) -> u32 {
    // SAFETY: as in `look_up`.
    let socket = unsafe { bpf_sk_lookup_udp(ctx, tuple.cast_mut(), size, BPF_F_CURRENT_NETNS as u64, 0) };
    if socket.is_null() {
        return NONE;
    }
    // SAFETY: not null, and the reference is held.
    let connected = unsafe { (*socket).state } == BPF_TCP_ESTABLISHED;
    // SAFETY: a reference that the look-up gave us, released once and not used afterwards.
    unsafe { bpf_sk_release(socket.cast()) };
    if connected { FLOW } else { LISTENER }
}

/// Says what kind of socket this is; the caller keeps its reference.
#[inline(always)]
fn examine(ctx: *mut c_void, socket: *mut bpf_sock, cookies: bool) -> u32 {
    // SAFETY: not null, and the reference is held.
    match unsafe { (*socket).state } {
        BPF_TCP_TIME_WAIT => TIME_WAIT,
        BPF_TCP_LISTEN if cookies && acknowledges_cookie(ctx, socket) => COOKIE,
        BPF_TCP_LISTEN => LISTENER,
        _ => FLOW,
    }
}

/// Does the segment acknowledge a SYN cookie of this listener? Any error means no: cookies off, none
/// issued lately, or the flags are wrong.
#[inline(always)]
fn acknowledges_cookie(ctx: *mut c_void, socket: *mut bpf_sock) -> bool {
    let packet = Packet::of(&XdpContext::new(ctx.cast()));
    let Some(start) = Ethernet::parse(&packet).map(|ethernet| ethernet.payload()) else { return false };
    let Some(version) = packet.window::<1>(start).map(Window::u8::<0>) else { return false };
    if version >> 4 == 6 {
        acknowledges6(&packet, socket, start)
    } else {
        acknowledges4(&packet, socket, start, version)
    }
}

#[inline(always)]
fn acknowledges4(packet: &Packet, socket: *mut bpf_sock, start: usize, version: u8) -> bool {
    let segment = start + usize::from(version & 0x0f) * 4;
    let (Some(header), Some(segment)) = (packet.at(start, IPV4_HEADER), packet.at(segment, TCP_HEADER))
    else {
        return false;
    };
    check_cookie(socket, (header, IPV4_HEADER), segment)
}

/// A client that puts extension headers before its handshake's last segment gets no cookie recognised.
#[inline(always)]
fn acknowledges6(packet: &Packet, socket: *mut bpf_sock, start: usize) -> bool {
    let (Some(header), Some(segment)) =
        (packet.at(start, IPV6_HEADER), packet.at(start + IPV6_HEADER, TCP_HEADER))
    else {
        return false;
    };
    packet.window::<1>(start + 6).is_some_and(|next| next.u8::<0>() == protocol::TCP)
        && check_cookie(socket, (header, IPV6_HEADER), segment)
}

#[inline(always)]
fn check_cookie(socket: *mut bpf_sock, (header, length): (usize, usize), segment: usize) -> bool {
    // SAFETY: both headers lie in the frame, the socket is a listener and its reference is held. The
    // helper reads the addresses only, so IP options do not matter to it.
    let answer = unsafe {
        bpf_tcp_check_syncookie(
            socket.cast(),
            header as *mut _,
            length as u32,
            segment as *mut tcphdr,
            TCP_HEADER as u32,
        )
    };
    answer == 0
}
