//! What the decision asks of the kernel.

use core::mem::size_of;

use aya_ebpf::EbpfContext;
use aya_ebpf::bindings::{
    BPF_F_CURRENT_NETNS, BPF_TCP_LISTEN, BPF_TCP_TIME_WAIT, bpf_sock, bpf_sock_tuple,
    bpf_sock_tuple__bindgen_ty_1, bpf_sock_tuple__bindgen_ty_1__bindgen_ty_1 as tuple_v4, tcphdr,
};
use aya_ebpf::helpers::generated::{
    bpf_ktime_get_boot_ns, bpf_sk_release, bpf_skc_lookup_tcp, bpf_tcp_check_syncookie,
};
use aya_ebpf::programs::XdpContext;
use farm_common::bytes::Bytes;
use farm_common::decide::Env;
use farm_common::flow::{Address, Flow, Kind};
use farm_common::parse::ETHERNET;
use farm_common::verdict::{BootTime, Socket};

use crate::packet::Packet;

/// Length of the headers without options, as the cookie check wants them.
const IPV4_HEADER: usize = 20;
const TCP_HEADER: usize = 20;

/// The kernel, during one run.
pub struct Host<'a> {
    /// The run.
    pub ctx: &'a XdpContext,
}

impl Env for Host<'_> {
    #[inline(always)]
    fn now(&self) -> BootTime {
        // SAFETY: the helper has no arguments and is allowed in XDP programs since 5.8.
        BootTime(unsafe { bpf_ktime_get_boot_ns() })
    }

    #[inline(always)]
    fn socket(&self, flow: &Flow) -> Socket {
        let (Address::V4(client), Address::V4(vip)) = (flow.client, flow.vip) else { return Socket::None };
        let mut tuple = bpf_sock_tuple {
            __bindgen_anon_1: bpf_sock_tuple__bindgen_ty_1 {
                ipv4: tuple_v4 {
                    saddr: u32::from_ne_bytes(client),
                    daddr: u32::from_ne_bytes(vip),
                    sport: flow.client_port.to_be(),
                    dport: flow.service_port.to_be(),
                },
            },
        };
        let size = size_of::<tuple_v4>() as u32;
        // SAFETY: context and tuple live through the call, and `size` bytes of the tuple are initialised.
        let socket = unsafe {
            bpf_skc_lookup_tcp(self.ctx.as_ptr(), &raw mut tuple, size, BPF_F_CURRENT_NETNS as u64, 0)
        };
        if socket.is_null() {
            return Socket::None;
        }
        let found = self.examine(socket, flow.kind);
        // SAFETY: a reference that the look-up gave us, released once and not used afterwards.
        unsafe { bpf_sk_release(socket.cast()) };
        found
    }
}

impl Host<'_> {
    /// Says what kind of socket this is; the caller keeps its reference.
    #[inline(always)]
    fn examine(&self, socket: *mut bpf_sock, kind: Kind) -> Socket {
        // SAFETY: not null, and the reference is held.
        match unsafe { (*socket).state } {
            BPF_TCP_TIME_WAIT => Socket::TimeWait,
            BPF_TCP_LISTEN => {
                Socket::Listener { cookie: kind == Kind::Segment && self.acknowledges_cookie(socket) }
            }
            _ => Socket::Flow,
        }
    }

    /// Does the segment acknowledge a SYN cookie of this listener? Any error means no: cookies off, none
    /// issued lately, or the flags are wrong.
    #[inline(always)]
    fn acknowledges_cookie(&self, socket: *mut bpf_sock) -> bool {
        let packet = Packet::of(self.ctx);
        let Some([version]) = packet.get::<1>(ETHERNET) else { return false };
        let segment = ETHERNET + usize::from(version & 0x0f) * 4;
        let (Some(header), Some(segment)) =
            (packet.at(ETHERNET, IPV4_HEADER), packet.at(segment, TCP_HEADER))
        else {
            return false;
        };
        // SAFETY: both headers lie in the frame, the socket is a listener and its reference is held. The
        // helper reads the addresses only, so IP options do not matter to it.
        let answer = unsafe {
            bpf_tcp_check_syncookie(
                socket.cast(),
                header as *mut _,
                IPV4_HEADER as u32,
                segment as *mut tcphdr,
                TCP_HEADER as u32,
            )
        };
        answer == 0
    }
}
