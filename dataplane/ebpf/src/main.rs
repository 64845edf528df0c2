//! The XDP program: parse, look up, decide, act, count. All but the last two lies in `farm_common`.
#![no_std]
#![no_main]
#![feature(asm_experimental_arch)]

mod events;
mod flows;
mod host;
mod maps;
mod packet;

use aya_ebpf::bindings::xdp_action::{XDP_DROP, XDP_PASS, XDP_TX};
use aya_ebpf::bindings::xdp_md;
use aya_ebpf::macros::xdp;
use aya_ebpf::programs::XdpContext;
use farm_common::asker::asker;
use farm_common::fragment;
use farm_common::judge::{Ingress, conclude, solicited};
use farm_common::layout::Slot;
use farm_common::parse::Ethernet;
use farm_common::read::{First, Reading, read};
use farm_common::rewrite::rewrite;
use farm_common::verdict::{Reason, Verdict};

use crate::host::Host;
use crate::packet::{Packet, afresh};

/// The filter of a service interface. All that an ordinary packet needs is in this one function: a call and its return
/// can cost as much as the whole decision (return thunks).
#[xdp(frags)]
#[inline(always)]
pub fn farm_filter(ctx: XdpContext) -> u32 {
    let (Some(arrival), Some(reading)) = (arrival(&ctx), maps::reading()) else { return pass(&ctx) };
    let Arrival { slot, ingress, ethernet } = arrival;
    match read(slot, ingress.link, &ethernet, &Packet::of(&ctx), reading) {
        First::Packet => {}
        First::Fragment => recall(ctx.ctx),
        First::Solicitation => {
            // Here, where nothing is held over the call, the verifier follows it once and not once for every way to it.
            note(ctx.ctx);
            return answer(ctx.ctx);
        }
        First::Done(Reason::Passed) => return pass(&ctx),
        First::Done(reason) => return finish(&ctx, XDP_DROP, reason),
    }
    let reading = reread(reading);
    let ingress = Ingress { link: reading.link(), ..ingress };
    let verdict = conclude(slot, &ingress, reading, &Host { ctx: &ctx, slot, port: ingress.port });
    if ingress.port.remembers != 0 && matches!(verdict, Verdict::Accept(_)) {
        flows::record(ctx.ctx, slot);
    }
    carry_out(&ctx, slot, &ingress, &reading.ethernet(), &verdict)
}

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

/// The reading as the map has it. Without this the compiler would go on with the values that it has just stored, and
/// the verifier with all it knows of each.
#[inline(always)]
fn reread(reading: &mut Reading) -> &Reading {
    // SAFETY: the pointer is that of the reference.
    unsafe { &*afresh(reading) }
}

/// Gives a fragment the ports of its first one. Out of line, as [`answer`] is.
#[inline(never)]
fn recall(ctx: *mut xdp_md) {
    // Else the compiler would load the frame's bounds before the call, as plain numbers.
    let packet = Packet::of(&XdpContext::new(afresh(ctx)));
    let (Some(ethernet), Some(reading)) = (Ethernet::parse(&packet), maps::reading()) else { return };
    if let Some(ports) = fragment::ports(&ethernet, &packet, &maps::Memory) {
        reading.learn(ports);
    }
}

/// Out of line: there is no room for both on the stack, and this one is rare.
#[inline(never)]
fn answer(ctx: *mut xdp_md) -> u32 {
    let ctx = XdpContext::new(ctx);
    let Some(Arrival { slot, ingress, ethernet }) = arrival(&ctx) else { return pass(&ctx) };
    let verdict = solicited(
        slot,
        &ingress,
        &ethernet,
        &Packet::of(&ctx),
        &Host { ctx: &ctx, slot, port: ingress.port },
    );
    carry_out(&ctx, slot, &ingress, &ethernet, &verdict)
}

/// Out of line for the same reason. Who answers does not matter: that may be another node the next time.
#[inline(never)]
fn note(ctx: *mut xdp_md) -> u32 {
    let ctx = XdpContext::new(ctx);
    let Some(Arrival { slot, ingress, ethernet }) = arrival(&ctx) else { return 0 };
    if let Some((asker, mac)) = asker(slot, ingress.link, &ethernet, &Packet::of(&ctx)) {
        maps::remember(&asker, mac);
    }
    0
}

#[inline(always)]
fn carry_out(
    ctx: &XdpContext,
    slot: &Slot,
    ingress: &Ingress<'_>,
    ethernet: &Ethernet,
    verdict: &Verdict,
) -> u32 {
    let action = match verdict {
        Verdict::Pass => return pass(ctx),
        Verdict::Drop(reason) => return finish(ctx, XDP_DROP, *reason),
        Verdict::Accept(_) => XDP_PASS,
        Verdict::Forward { .. } | Verdict::Answer => XDP_TX,
    };
    match rewrite(verdict, slot, ingress, ethernet, &mut Packet::of(ctx)) {
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
