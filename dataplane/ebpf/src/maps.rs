//! The maps, by the names and types of `farm_common::layout`.

use core::ptr::read_volatile;

use aya_ebpf::bindings::BPF_F_MMAPABLE;
use aya_ebpf::helpers::generated::bpf_ktime_get_boot_ns;
use aya_ebpf::macros::map;
use aya_ebpf::maps::{Array, HashMap, LruHashMap, PerCpuArray, RingBuf};
use farm_common::fragment::{Fragments, Ports, Whole};
use farm_common::judge::Ingress;
use farm_common::layout::{
    ASKERS, Asked, Asker, EVENT_RING, FLOWS, FRAGMENTS, Identity, LINKS, Port, SERVICES, Slot, Word,
};
use farm_common::memory::{FlowKey, ServiceKey};
use farm_common::read::Reading;
use farm_common::verdict::{REASONS, Reason};
use farm_common::vlan::Vlan;

#[map]
static FARM_TABLE: Array<Slot> = Array::with_max_entries(2, BPF_F_MMAPABLE);
#[map]
static FARM_WORD: Array<Word> = Array::with_max_entries(1, BPF_F_MMAPABLE);
/// Not read here: it tells the next daemon whose pins these are.
#[map]
static FARM_IDENTITY: Array<Identity> = Array::with_max_entries(1, BPF_F_MMAPABLE);
#[map]
static FARM_PORTS: Array<Port> = Array::with_max_entries(LINKS as u32, 0);
#[map]
static FARM_COUNTERS: PerCpuArray<u64> = PerCpuArray::with_max_entries(REASONS, 0);
/// Pinned: a client whose entry never ages is not heard again, so a daemon that comes back must know it from before.
#[map]
static FARM_ASKERS: LruHashMap<Asker, Asked> = LruHashMap::with_max_entries(ASKERS, 0);
/// Not pinned, and nobody's but the program's: see [`Reading`].
#[map]
static FARM_READING: PerCpuArray<Reading> = PerCpuArray::with_max_entries(1, 0);
#[map]
static FARM_FRAGMENTS: LruHashMap<Whole, u32> = LruHashMap::with_max_entries(FRAGMENTS, 0);
#[map]
pub static FARM_FLOWS: LruHashMap<FlowKey, u64> = LruHashMap::with_max_entries(FLOWS, 0);
#[map]
pub static FARM_ELSEWHERE: HashMap<ServiceKey, u8> = HashMap::with_max_entries(SERVICES as u32, 0);
#[map]
pub static FARM_EVENTS: RingBuf = RingBuf::with_byte_size(EVENT_RING, 0);

/// The slot in force. The word is read once: a flip during the run concerns the next frame.
#[inline(always)]
pub fn slot() -> Option<&'static Slot> {
    let word = FARM_WORD.get_ptr(0)?;
    // SAFETY: `get_ptr` returns a valid, aligned pointer to the map's element. The daemon stores the word
    // whole, and `volatile` keeps the load whole and single.
    let word = unsafe { read_volatile(&raw const (*word).word) };
    FARM_TABLE.get((word & 1) as u32)
}

/// The link that this VLAN of the interface is, if any.
#[inline(always)]
pub fn ingress(ifindex: u32, vlan: Vlan) -> Option<Ingress<'static>> {
    Ingress::find(ifindex, vlan, |link| FARM_PORTS.get(u32::from(link)))
}

/// Where this CPU keeps what it has read of a packet.
#[inline(always)]
pub fn reading() -> Option<&'static mut Reading> {
    let reading = FARM_READING.get_ptr_mut(0)?;
    // SAFETY: a valid, aligned pointer to this CPU's element; the program is not preempted by itself, and only one
    // half of the judgement has the reference at a time.
    Some(unsafe { &mut *reading })
}

/// The memory of first fragments. Full, it forgets the oldest; an update that fails is as if this one were forgotten.
pub struct Memory;

impl Fragments for Memory {
    #[inline(always)]
    fn remember(&self, packet: &Whole, ports: Ports) {
        let _ = FARM_FRAGMENTS.insert(packet, u32::from(ports), 0);
    }

    #[inline(always)]
    fn recall(&self, packet: &Whole) -> Option<Ports> {
        let ports = FARM_FRAGMENTS.get_ptr(packet)?;
        // SAFETY: a valid, aligned pointer to an element; one that is replaced meanwhile is read whole.
        Some(Ports::from(unsafe { read_volatile(ports) }))
    }
}

/// Remembers who asked for a virtual IP, and where it is. Where that fails, its own next question is the next chance.
#[inline(always)]
pub fn remember(asker: &Asker, mac: [u8; 6]) {
    // SAFETY: the helper has no arguments and is allowed in XDP programs since 5.8.
    let at = unsafe { bpf_ktime_get_boot_ns() };
    let _ = FARM_ASKERS.insert(asker, Asked { at, mac, reserved: [0; 2] }, 0);
}

/// Counts a verdict; returns how often this CPU has come to it.
#[inline(always)]
pub fn count(reason: Reason) -> u64 {
    let Some(counter) = FARM_COUNTERS.get_ptr_mut(u32::from(reason)) else { return 0 };
    // SAFETY: a valid, aligned pointer to this CPU's element; the program is not preempted by itself.
    unsafe {
        *counter += 1;
        *counter
    }
}
