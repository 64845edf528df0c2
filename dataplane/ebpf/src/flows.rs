//! The memory of flows whose sockets are not on this node. Out of line: most nodes have none.

use aya_ebpf::bindings::xdp_md;
use aya_ebpf::helpers::generated::bpf_ktime_get_boot_ns;
use aya_ebpf::programs::XdpContext;
use core::ptr::{read_volatile, write_volatile};
use farm_common::flow::{Flow, Kind};
use farm_common::layout::Slot;
use farm_common::memory::{self, FlowKey, Known, ServiceKey};
use farm_common::parse::Ethernet;
use farm_common::verdict::{BootTime, Socket};

use crate::maps::{self, FARM_ELSEWHERE, FARM_FLOWS};
use crate::packet::{Packet, afresh};

/// Remembers the accepted packet's flow, if it is of a service whose flows are to be remembered.
#[inline(never)]
pub fn record(ctx: *mut xdp_md, slot: &Slot) {
    // As in `recall`: else the compiler would load the frame's bounds before the call.
    let packet = Packet::of(&XdpContext::new(afresh(ctx)));
    let (Some(ethernet), Some(reading)) = (Ethernet::parse(&packet), maps::reading()) else { return };
    let Some(flow) = reading.flow_to(slot) else { return };
    let of_flow = matches!(flow.kind, Kind::Syn | Kind::Segment | Kind::Datagram);
    if !of_flow || FARM_ELSEWHERE.get_ptr(&ServiceKey::of(&flow)).is_none() {
        return;
    }
    write(&FlowKey::of(&flow), flow.kind, memory::end(&ethernet, &packet));
}

#[inline(always)]
fn write(key: &FlowKey, kind: Kind, end: memory::End) {
    let (cell, now) = (FARM_FLOWS.get_ptr_mut(key), now());
    // SAFETY: a valid, aligned pointer to an element, whose word is read and written whole. Two CPUs with frames of one
    // flow may both write: either word is what one of the two orders would leave.
    let known = cell.and_then(|cell| Known::read(unsafe { read_volatile(cell) }, now));
    match (memory::accepted(known, kind, end, now), cell) {
        // SAFETY: as above.
        (Some(known), Some(cell)) => unsafe { write_volatile(cell, known.word()) },
        // Full, it forgets the oldest; an insertion that fails is as if this one were forgotten.
        (Some(known), None) => drop(FARM_FLOWS.insert(key, known.word(), 0)),
        (None, Some(_)) => drop(FARM_FLOWS.remove(key)),
        (None, None) => {}
    }
}

/// What [`recall`] finds, as a number: a function of its own gives back nothing else. Here it is what it does not know
/// of; sockets are looked up as usual.
const UNKNOWN: u32 = 0;
/// This node holds the flow.
pub const HELD: u32 = 1;

/// What stands in for the flow's socket.
#[inline(never)]
pub fn recall(flow: &Flow) -> u32 {
    if FARM_ELSEWHERE.get_ptr(&ServiceKey::of(flow)).is_none() {
        return UNKNOWN;
    }
    let (key, now) = (FlowKey::of(flow), now());
    // SAFETY: as in `write`.
    let known = FARM_FLOWS.get_ptr(&key).and_then(|cell| Known::read(unsafe { read_volatile(cell) }, now));
    match memory::socket(known, flow.kind) {
        Socket::Flow => HELD,
        // A SYN begins another flow, whoever takes it: the former one is nobody's.
        Socket::TimeWait => {
            let _ = FARM_FLOWS.remove(&key);
            UNKNOWN
        }
        Socket::None | Socket::Listener { .. } => UNKNOWN,
    }
}

#[inline(always)]
fn now() -> BootTime {
    // SAFETY: the helper has no arguments.
    BootTime(unsafe { bpf_ktime_get_boot_ns() })
}
