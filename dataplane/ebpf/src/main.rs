//! The XDP program: parse, look up, decide, act, count. All but the last two lies in `farm_common`.
#![no_std]
#![no_main]
#![feature(asm_experimental_arch)]

mod events;
mod host;
mod maps;
mod packet;

use aya_ebpf::bindings::xdp_action::{XDP_DROP, XDP_PASS, XDP_TX};
use aya_ebpf::bindings::xdp_md;
use aya_ebpf::macros::xdp;
use aya_ebpf::programs::XdpContext;
use farm_common::judge::{First, Ingress, conclude6, is_ipv6, judge4, read6, solicited6};
use farm_common::layout::Slot;
use farm_common::rewrite::rewrite;
use farm_common::verdict::{Reason, Verdict};

use crate::host::Host;
use crate::packet::Packet;

/// The filter of a service interface.
#[xdp(frags)]
pub fn farm_filter(ctx: XdpContext) -> u32 {
    if !is_ipv6(&Packet::of(&ctx)) {
        return filter4(ctx.ctx);
    }
    match filter6(ctx.ctx) {
        READ => conclude_packet6(ctx.ctx),
        ASKED => conclude_solicitation6(ctx.ctx),
        action => action,
    }
}

// Out of line, each: together they need more than the 512 bytes of stack that a program has.

#[inline(never)]
fn filter4(ctx: *mut xdp_md) -> u32 {
    let ctx = XdpContext::new(ctx);
    // Array maps have all their elements: the other branch is for the verifier. What it passes has no
    // proof of passage, so the guard keeps it from every virtual IP.
    let Some(slot) = maps::slot() else { return XDP_PASS };
    let ingress = maps::ingress(ctx.ingress_ifindex() as u32);
    let verdict = judge4(slot, ingress.as_ref(), &Packet::of(&ctx), &Host { ctx: &ctx });
    conclude(&ctx, slot, ingress.as_ref(), &verdict)
}

/// No action: the packet was read and waits for its verdict.
const READ: u32 = u32::MAX;
/// No action: it is a solicitation and waits for its verdict.
const ASKED: u32 = u32::MAX - 1;

#[inline(never)]
fn filter6(ctx: *mut xdp_md) -> u32 {
    let ctx = XdpContext::new(ctx);
    let (Some(slot), Some(reading)) = (maps::slot(), maps::reading()) else { return XDP_PASS };
    let ingress = maps::ingress(ctx.ingress_ifindex() as u32);
    match read6(slot, ingress.as_ref(), &Packet::of(&ctx)) {
        First::Packet(read) => {
            *reading = read;
            READ
        }
        First::Solicitation => ASKED,
        First::Done(reason) => {
            finish(&ctx, if reason == Reason::Passed { XDP_PASS } else { XDP_DROP }, reason)
        }
    }
}

#[inline(never)]
fn conclude_solicitation6(ctx: *mut xdp_md) -> u32 {
    let ctx = XdpContext::new(ctx);
    let Some(slot) = maps::slot() else { return XDP_PASS };
    let ingress = maps::ingress(ctx.ingress_ifindex() as u32);
    let verdict = solicited6(slot, ingress.as_ref(), &Packet::of(&ctx), &Host { ctx: &ctx });
    conclude(&ctx, slot, ingress.as_ref(), &verdict)
}

#[inline(never)]
fn conclude_packet6(ctx: *mut xdp_md) -> u32 {
    let ctx = XdpContext::new(ctx);
    let (Some(slot), Some(reading)) = (maps::slot(), maps::reading()) else { return XDP_PASS };
    let ingress = maps::ingress(ctx.ingress_ifindex() as u32);
    let verdict = conclude6(slot, ingress.as_ref(), &Packet::of(&ctx), reading, &Host { ctx: &ctx });
    conclude(&ctx, slot, ingress.as_ref(), &verdict)
}

#[inline(always)]
fn conclude(ctx: &XdpContext, slot: &Slot, ingress: Option<&Ingress<'_>>, verdict: &Verdict) -> u32 {
    let mut packet = Packet::of(ctx);
    let (action, reason) = act(verdict, slot, ingress, &mut packet);
    finish(ctx, action, reason)
}

#[inline(always)]
fn finish(ctx: &XdpContext, action: u32, reason: Reason) -> u32 {
    let count = maps::count(reason);
    if action == XDP_DROP {
        events::sample(ctx, &Packet::of(ctx), reason, count);
    }
    action
}

#[inline(always)]
fn act(verdict: &Verdict, slot: &Slot, ingress: Option<&Ingress<'_>>, packet: &mut Packet) -> (u32, Reason) {
    let action = match verdict {
        Verdict::Pass => return (XDP_PASS, Reason::Passed),
        Verdict::Drop(reason) => return (XDP_DROP, *reason),
        Verdict::Accept(_) => XDP_PASS,
        Verdict::Forward { .. } | Verdict::Answer => XDP_TX,
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
