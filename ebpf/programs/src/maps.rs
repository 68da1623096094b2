//! The maps' definitions. What is in each: `fabric-ebpf-abi`'s first page.

use aya_ebpf::{
    bindings::BPF_F_NO_PREALLOC,
    btf_maps::{Array, HashMap, LpmTrie, LruHashMap, PerCpuArray, RingBuf},
    macros::btf_map,
};
use fabric_ebpf_abi::{
    AddrKey, Backend, Config, DeviceEntry, EndpointEntry, Event, EventBudget, FlowImage, FlowKey4, FlowKey6, FragKey4,
    FragKey6, FragValue, IpcacheEntry, Metric, NatImage4, NatImage6, NatKey4, NatKey6, NodeEntry, OwnedPrefix,
    PolicyEntry, PolicyKey, ServiceEntry, ServiceKey, SocketEntry, SocketKey, map,
};
use fabric_ebpf_logic::Workspace;

/// Memory as entries come: a node with few needs little, and loading stays quick.
const SPARSE: usize = BPF_F_NO_PREALLOC as usize;

#[btf_map]
pub static CONFIG: Array<Config, { map::CONFIG_SIZE }> = Array::new();
#[btf_map]
pub static EPOCH: Array<u32, { map::EPOCH_SIZE }> = Array::new();
#[btf_map]
pub static DEVICES: HashMap<u32, DeviceEntry, { map::DEVICES_SIZE }, SPARSE> = HashMap::new();
#[btf_map]
pub static ENDPOINTS: HashMap<AddrKey, EndpointEntry, { map::ENDPOINTS_SIZE }, SPARSE> = HashMap::new();
#[btf_map]
pub static IPCACHE_EXACT: HashMap<AddrKey, IpcacheEntry, { map::IPCACHE_EXACT_SIZE }, SPARSE> = HashMap::new();
#[btf_map]
pub static IPCACHE: LpmTrie<AddrKey, IpcacheEntry, { map::IPCACHE_SIZE }> = LpmTrie::new();
#[btf_map]
pub static OWNED: LpmTrie<AddrKey, OwnedPrefix, { map::OWNED_SIZE }> = LpmTrie::new();
#[btf_map]
pub static NODES: HashMap<AddrKey, NodeEntry, { map::NODES_SIZE }, SPARSE> = HashMap::new();
#[btf_map]
pub static POLICY: LpmTrie<PolicyKey, PolicyEntry, { map::POLICY_SIZE }> = LpmTrie::new();
#[btf_map]
pub static FLOW4: LruHashMap<FlowKey4, FlowImage, { map::FLOW4_SIZE }> = LruHashMap::new();
#[btf_map]
pub static FLOW6: LruHashMap<FlowKey6, FlowImage, { map::FLOW6_SIZE }> = LruHashMap::new();
#[btf_map]
pub static NAT4: LruHashMap<NatKey4, NatImage4, { map::NAT4_SIZE }> = LruHashMap::new();
#[btf_map]
pub static NAT6: LruHashMap<NatKey6, NatImage6, { map::NAT6_SIZE }> = LruHashMap::new();
#[btf_map]
pub static FRAG4: LruHashMap<FragKey4, FragValue, { map::FRAG4_SIZE }> = LruHashMap::new();
#[btf_map]
pub static FRAG6: LruHashMap<FragKey6, FragValue, { map::FRAG6_SIZE }> = LruHashMap::new();
#[btf_map]
pub static SERVICES: HashMap<ServiceKey, ServiceEntry, { map::SERVICES_SIZE }, SPARSE> = HashMap::new();
#[btf_map]
pub static BACKENDS: Array<Backend, { map::BACKENDS_SIZE }> = Array::new();
#[btf_map]
pub static SOCKETS: LruHashMap<SocketKey, SocketEntry, { map::SOCKETS_SIZE }> = LruHashMap::new();
#[btf_map]
pub static METRICS: PerCpuArray<Metric, { map::METRICS_SIZE }> = PerCpuArray::new();
#[btf_map]
pub static EVENTS: RingBuf<Event, { map::EVENTS_SIZE }> = RingBuf::new();
#[btf_map]
pub static EVENT_BUDGET: PerCpuArray<EventBudget, { map::EVENT_BUDGET_SIZE }> = PerCpuArray::new();
#[btf_map]
pub static WORKSPACE: PerCpuArray<Workspace, { map::WORKSPACE_SIZE }> = PerCpuArray::new();
