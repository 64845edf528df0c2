//! The XDP program: parse, look up, decide, act, count. All but the last two lies in `farm_common`.
#![no_std]
#![no_main]

mod events;
mod host;
mod maps;
mod packet;

use aya_ebpf::bindings::xdp_action::{XDP_DROP, XDP_PASS, XDP_TX};
use aya_ebpf::macros::xdp;
use aya_ebpf::programs::XdpContext;
use farm_common::judge::{Ingress, judge};
use farm_common::layout::Slot;
use farm_common::rewrite::rewrite;
use farm_common::verdict::{Reason, Verdict};

use crate::host::Host;
use crate::packet::Packet;

/// The filter of a service interface.
#[xdp(frags)]
pub fn farm_filter(ctx: XdpContext) -> u32 {
    // Array maps have all their elements: the other branch is for the verifier. What it passes has no
    // proof of passage, so the guard keeps it from every virtual IP.
    match maps::slot() {
        Some(slot) => filter(&ctx, slot),
        None => XDP_PASS,
    }
}

#[inline(always)]
fn filter(ctx: &XdpContext, slot: &Slot) -> u32 {
    let mut packet = Packet::of(ctx);
    let ingress = maps::ingress(ctx.ingress_ifindex() as u32);
    let verdict = judge(slot, ingress.as_ref(), &packet, &Host { ctx });
    let (action, reason) = act(&verdict, slot, ingress.as_ref(), &mut packet);
    let count = maps::count(reason);
    if action == XDP_DROP {
        events::sample(ctx, &packet, reason, count);
    }
    action
}

#[inline(always)]
fn act(verdict: &Verdict, slot: &Slot, ingress: Option<&Ingress>, packet: &mut Packet) -> (u32, Reason) {
    let action = match verdict {
        Verdict::Pass => return (XDP_PASS, Reason::Passed),
        Verdict::Drop(reason) => return (XDP_DROP, *reason),
        Verdict::Accept(_) => XDP_PASS,
        Verdict::Forward { .. } | Verdict::AnswerArp { .. } => XDP_TX,
    };
    match ingress.and_then(|ingress| rewrite(verdict, slot, ingress, packet)) {
        Some(()) => (action, verdict.reason()),
        None => (XDP_DROP, Reason::Malformed),
    }
}

#[cfg(not(test))]
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    // Unreachable: the verifier refuses a program in which this loop can be entered.
    loop {}
}

#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
