//! The tables, the clock and chance as `fabric-ebpf-logic` asks for them, from the kernel.

use aya_ebpf::{
    bindings::{BPF_ANY, BPF_NOEXIST},
    btf_maps::{LpmTrie, lpm_trie::Key},
    helpers::generated::{bpf_get_prandom_u32, bpf_ktime_get_coarse_ns},
};
use fabric_ebpf_abi::{
    AddrKey, Backend, Config, DeviceEntry, EndpointEntry, FlowEntry, FlowImage, FlowKey4, FlowKey6, FragKey4, FragKey6,
    FragValue, IpcacheEntry, NatImage4, NatImage6, NatKey4, NatKey6, NodeEntry, OwnedPrefix, PolicyEntry, PolicyKey,
    ServiceEntry, ServiceKey, SocketEntry, SocketKey,
};
use fabric_ebpf_logic::{Clock, Maps};

use crate::maps;

/// The kernel's tables.
pub struct Kernel;

const NANOSECONDS: u64 = 1_000_000_000;

impl Clock for Kernel {
    #[inline(always)]
    fn seconds(&self) -> u32 {
        // SAFETY: a helper without arguments. The coarse clock is eight times cheaper, and a tick is enough here.
        let now = unsafe { bpf_ktime_get_coarse_ns() };
        (now / NANOSECONDS) as u32
    }

    #[inline(always)]
    fn random(&self) -> u32 {
        // SAFETY: a helper without arguments.
        unsafe { bpf_get_prandom_u32() }
    }
}

/// A live entry: other CPUs write it, so it is only seen through cells.
#[inline(always)]
fn live<'a>(image: *const FlowImage) -> &'a FlowEntry {
    // SAFETY: the pointer comes from a look-up that did not miss, so the value is there until the program ends (an LRU map may
    // give it to another flow, but never frees it under a program); both types have the same layout, asserted in `abi`.
    unsafe { &*image.cast::<FlowEntry>() }
}

/// An entry of a hash table.
#[inline(always)]
fn entry<'a, V>(value: Option<*const V>) -> Option<&'a V> {
    // SAFETY: the pointer comes from a look-up that did not miss, so the value is there until the program ends; it is plain
    // numbers, and whoever changes the entry puts a new value in its place.
    value.map(|v| unsafe { &*v })
}

#[inline(always)]
fn longest<'a, K: Copy, V, const N: usize>(map: &'a LpmTrie<K, V, N>, key: &K) -> Option<&'a V> {
    map.get(&Key::new(size_of::<K>() as u32 * 8, *key))
}

#[inline(always)]
const fn flag(fresh: bool) -> u64 {
    (if fresh { BPF_NOEXIST } else { BPF_ANY }) as u64
}

impl Maps for Kernel {
    type Ref<'a, T: 'a> = &'a T;

    #[inline(always)]
    fn config(&self) -> Option<&Config> {
        maps::CONFIG.get(0)
    }
    #[inline(always)]
    fn epoch(&self) -> u32 {
        // SAFETY: index 0 of an array of one; volatile, because two reads in one program are meant to be two reads.
        maps::EPOCH.get_ptr(0).map_or(0, |epoch| unsafe { epoch.read_volatile() })
    }
    #[inline(always)]
    fn device(&self, ifindex: u32) -> Option<&DeviceEntry> {
        entry(maps::DEVICES.get_ptr(ifindex))
    }
    #[inline(always)]
    fn endpoint(&self, key: &AddrKey) -> Option<&EndpointEntry> {
        entry(maps::ENDPOINTS.get_ptr(key))
    }
    #[inline(always)]
    fn ipcache_exact(&self, key: &AddrKey) -> Option<&IpcacheEntry> {
        entry(maps::IPCACHE_EXACT.get_ptr(key))
    }
    #[inline(always)]
    fn ipcache_prefix(&self, key: &AddrKey) -> Option<&IpcacheEntry> {
        longest(&maps::IPCACHE, key)
    }
    #[inline(always)]
    fn owned(&self, key: &AddrKey) -> Option<&OwnedPrefix> {
        longest(&maps::OWNED, key)
    }
    #[inline(always)]
    fn node(&self, key: &AddrKey) -> Option<&NodeEntry> {
        entry(maps::NODES.get_ptr(key))
    }
    #[inline(always)]
    fn policy(&self, key: &PolicyKey) -> Option<&PolicyEntry> {
        longest(&maps::POLICY, key)
    }
    #[inline(always)]
    fn flow4(&self, key: &FlowKey4) -> Option<&FlowEntry> {
        maps::FLOW4.get_ptr(key).map(live)
    }
    #[inline(always)]
    fn flow6(&self, key: &FlowKey6) -> Option<&FlowEntry> {
        maps::FLOW6.get_ptr(key).map(live)
    }
    #[inline(always)]
    fn flow4_insert(&self, key: &FlowKey4, value: &FlowImage) -> bool {
        maps::FLOW4.insert(key, value, 0).is_ok()
    }
    #[inline(always)]
    fn flow6_insert(&self, key: &FlowKey6, value: &FlowImage) -> bool {
        maps::FLOW6.insert(key, value, 0).is_ok()
    }
    #[inline(always)]
    fn nat4(&self, key: &NatKey4) -> Option<&NatImage4> {
        entry(maps::NAT4.get_ptr(key))
    }
    #[inline(always)]
    fn nat6(&self, key: &NatKey6) -> Option<&NatImage6> {
        entry(maps::NAT6.get_ptr(key))
    }
    #[inline(always)]
    fn nat4_insert(&self, key: &NatKey4, value: &NatImage4, fresh: bool) -> bool {
        maps::NAT4.insert(key, value, flag(fresh)).is_ok()
    }
    #[inline(always)]
    fn nat6_insert(&self, key: &NatKey6, value: &NatImage6, fresh: bool) -> bool {
        maps::NAT6.insert(key, value, flag(fresh)).is_ok()
    }
    #[inline(always)]
    fn frag4(&self, key: &FragKey4) -> Option<&FragValue> {
        entry(maps::FRAG4.get_ptr(key))
    }
    #[inline(always)]
    fn frag6(&self, key: &FragKey6) -> Option<&FragValue> {
        entry(maps::FRAG6.get_ptr(key))
    }
    #[inline(always)]
    fn frag4_insert(&self, key: &FragKey4, value: FragValue) {
        // Without room the later fragments are dropped with their own reason.
        let _ = maps::FRAG4.insert(key, &value, 0);
    }
    #[inline(always)]
    fn frag6_insert(&self, key: &FragKey6, value: FragValue) {
        let _ = maps::FRAG6.insert(key, &value, 0);
    }
    #[inline(always)]
    fn service(&self, key: &ServiceKey) -> Option<&ServiceEntry> {
        entry(maps::SERVICES.get_ptr(key))
    }
    #[inline(always)]
    fn backend(&self, index: u32) -> Option<&Backend> {
        maps::BACKENDS.get(index)
    }
    #[inline(always)]
    fn socket(&self, key: &SocketKey) -> Option<&SocketEntry> {
        entry(maps::SOCKETS.get_ptr(key))
    }
    #[inline(always)]
    fn socket_insert(&self, key: &SocketKey, value: &SocketEntry) -> bool {
        maps::SOCKETS.insert(key, value, 0).is_ok()
    }
}
