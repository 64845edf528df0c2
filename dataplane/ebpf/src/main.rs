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
use farm_common::judge::{First, Ingress, conclude6, judge4, read6, solicited6};
use farm_common::layout::Slot;
use farm_common::parse::{ETHERTYPE_IPV6, Ethernet};
use farm_common::rewrite::rewrite;
use farm_common::verdict::{Reason, Verdict};

use crate::host::Host;
use crate::packet::Packet;

/// The filter of a service interface.
#[xdp(frags)]
pub fn farm_filter(ctx: XdpContext) -> u32 {
    match Ethernet::parse(&Packet::of(&ctx)) {
        Some(ethernet) if ethernet.ethertype == ETHERTYPE_IPV6 => {}
        _ => return filter4(ctx.ctx),
    }
    match filter6(ctx.ctx) {
        READ => conclude_packet6(ctx.ctx),
        ASKED => conclude_solicitation6(ctx.ctx),
        action => action,
    }
}

// Out of line, each: together they need more than the 512 bytes of stack that a program has.

/// A frame that may be for a virtual IP.
struct Arrival {
    slot: &'static Slot,
    ingress: Ingress<'static>,
    ethernet: Ethernet,
}

/// `None` for what passes: no Ethernet header, or a network that carries no virtual IP. (Array maps have all their
/// elements: that branch is for the verifier.) What passes has no proof of passage, so the guard keeps it from every
/// virtual IP.
#[inline(always)]
fn arrival(ctx: &XdpContext) -> Option<Arrival> {
    let ethernet = Ethernet::parse(&Packet::of(ctx))?;
    let ingress = maps::ingress(ctx.ingress_ifindex() as u32, ethernet.vlan)?;
    Some(Arrival { slot: maps::slot()?, ingress, ethernet })
}

#[inline(never)]
fn filter4(ctx: *mut xdp_md) -> u32 {
    let ctx = XdpContext::new(ctx);
    let Some(Arrival { slot, ingress, ethernet }) = arrival(&ctx) else { return pass(&ctx) };
    let verdict = judge4(slot, &ingress, &ethernet, &Packet::of(&ctx), &Host { ctx: &ctx });
    conclude(&ctx, slot, &ingress, &verdict)
}

/// No action: the packet was read and waits for its verdict.
const READ: u32 = u32::MAX;
/// No action: it is a solicitation and waits for its verdict.
const ASKED: u32 = u32::MAX - 1;

#[inline(never)]
fn filter6(ctx: *mut xdp_md) -> u32 {
    let ctx = XdpContext::new(ctx);
    let (Some(arrival), Some(reading)) = (arrival(&ctx), maps::reading()) else { return pass(&ctx) };
    let Arrival { slot, ingress, ethernet } = arrival;
    match read6(slot, &ingress, &ethernet, &Packet::of(&ctx)) {
        First::Packet(read) => {
            *reading = read;
            READ
        }
        First::Solicitation => ASKED,
        First::Done(Reason::Passed) => pass(&ctx),
        First::Done(reason) => finish(&ctx, XDP_DROP, reason),
    }
}

#[inline(never)]
fn conclude_solicitation6(ctx: *mut xdp_md) -> u32 {
    let ctx = XdpContext::new(ctx);
    let Some(Arrival { slot, ingress, ethernet }) = arrival(&ctx) else { return pass(&ctx) };
    let verdict = solicited6(slot, &ingress, &ethernet, &Packet::of(&ctx), &Host { ctx: &ctx });
    conclude(&ctx, slot, &ingress, &verdict)
}

#[inline(never)]
fn conclude_packet6(ctx: *mut xdp_md) -> u32 {
    let ctx = XdpContext::new(ctx);
    let (Some(arrival), Some(reading)) = (arrival(&ctx), maps::reading()) else { return pass(&ctx) };
    let Arrival { slot, ingress, ethernet } = arrival;
    let verdict = conclude6(slot, &ingress, &ethernet, reading, &Host { ctx: &ctx });
    conclude(&ctx, slot, &ingress, &verdict)
}

#[inline(always)]
fn conclude(ctx: &XdpContext, slot: &Slot, ingress: &Ingress<'_>, verdict: &Verdict) -> u32 {
    let action = match verdict {
        Verdict::Pass => return pass(ctx),
        Verdict::Drop(reason) => return finish(ctx, XDP_DROP, *reason),
        Verdict::Accept(_) => XDP_PASS,
        Verdict::Forward { .. } | Verdict::Answer => XDP_TX,
    };
    let mut packet = Packet::of(ctx);
    // Parsed again: to keep it through the decision would cost more, and stack that is not there.
    let ethernet = Ethernet::parse(&packet);
    match ethernet.and_then(|ethernet| rewrite(verdict, slot, ingress, &ethernet, &mut packet)) {
        Some(()) => finish(ctx, action, verdict.reason()),
        None => finish(ctx, XDP_DROP, Reason::Malformed),
    }
}

#[inline(always)]
fn pass(ctx: &XdpContext) -> u32 {
    finish(ctx, XDP_PASS, Reason::Passed)
}

#[inline(always)]
fn finish(ctx: &XdpContext, action: u32, reason: Reason) -> u32 {
    let count = maps::count(reason);
    if action == XDP_DROP {
        events::sample(ctx, &Packet::of(ctx), reason, count);
    }
    action
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
