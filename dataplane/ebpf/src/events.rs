//! Sampled drops for the ring buffer.

use aya_ebpf::programs::XdpContext;
use farm_common::bytes::{Bytes, Window};
use farm_common::layout::{EVENT_HEAD, EVENT_SAMPLE, Event};
use farm_common::verdict::Reason;

use crate::maps::FARM_EVENTS;
use crate::packet::Packet;

/// Writes one drop in [`EVENT_SAMPLE`] to the ring buffer. A full ring loses the event: the counter has it.
#[inline(always)]
pub fn sample(ctx: &XdpContext, packet: &Packet, reason: Reason, count: u64) {
    if count % EVENT_SAMPLE != 1 {
        return;
    }
    let Some(mut entry) = FARM_EVENTS.reserve::<Event>(0) else { return };
    let mut event = Event {
        reason: u32::from(reason),
        ifindex: ctx.ingress_ifindex() as u32,
        length: 0,
        reserved: 0,
        head: [0; EVENT_HEAD],
    };
    for (chunk, head) in event.head.chunks_exact_mut(8).enumerate() {
        let Some(bytes) = packet.window::<8>(chunk * 8) else { break };
        head.copy_from_slice(&bytes.word::<0>().to_ne_bytes());
        event.length += 8;
    }
    entry.write(event);
    entry.submit(0);
}
