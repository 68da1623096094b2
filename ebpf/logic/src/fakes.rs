//! Maps in memory and packets in a slice: for tests.

pub mod frame;
pub mod scene;

use core::cell::{Cell, RefCell};
use std::{collections::HashMap, hash::Hash, rc::Rc, vec::Vec};

use fabric_ebpf_abi::{
    AddrKey, Backend, Config, DeviceEntry, EndpointEntry, FlowEntry, FlowImage, FlowKey4, FlowKey6, FragKey4, FragKey6,
    FragValue, IpcacheEntry, NatImage4, NatImage6, NatKey4, NatKey6, NodeEntry, OwnedPrefix, PolicyEntry, PolicyKey,
    ServiceEntry, ServiceKey, SocketEntry, SocketKey, Wire,
};

use crate::{
    maps::{Clock, Maps, Step},
    packet::{MAX_OFFSET, Packet},
};

/// Tables that the programs may write.
type Table<K, V> = RefCell<HashMap<K, V>>;

/// A longest-prefix table by plain search: the reference for the kernel's trie.
#[derive(Debug)]
pub struct Prefixes<K, V>(Vec<(u32, K, V)>);

impl<K, V> Default for Prefixes<K, V> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

/// A key as bits, the first bit first.
pub trait Bits {
    /// The bytes, in the order in which the kernel compares them.
    fn bytes(&self) -> Vec<u8>;
}

impl Bits for AddrKey {
    fn bytes(&self) -> Vec<u8> {
        let mut bytes = self.scope.to_ne_bytes().to_vec();
        bytes.extend([self.pad, self.family]);
        bytes.extend(self.addr.0.iter().flat_map(|word| word.to_ne_bytes()));
        bytes
    }
}

impl Bits for PolicyKey {
    fn bytes(&self) -> Vec<u8> {
        let mut bytes = self.subject.to_ne_bytes().to_vec();
        bytes.extend(self.peer.to_ne_bytes());
        bytes.extend([self.class, self.proto]);
        bytes.extend(self.port.get().to_be_bytes());
        bytes
    }
}

impl<K: Bits, V: Copy> Prefixes<K, V> {
    /// Puts a prefix of `len` bits.
    pub fn insert(&mut self, len: u32, key: K, value: V) {
        self.0.retain(|(l, k, _)| *l != len || !matches(len, &k.bytes(), &key.bytes()));
        self.0.push((len, key, value));
    }

    /// Removes all.
    pub fn clear(&mut self) {
        self.0.clear();
    }

    /// Every prefix with its length.
    pub fn iter(&self) -> impl Iterator<Item = &(u32, K, V)> {
        self.0.iter()
    }

    fn longest(&self, key: &K) -> Option<V> {
        let key = key.bytes();
        self.0
            .iter()
            .filter(|(len, k, _)| matches(*len, &k.bytes(), &key))
            .max_by_key(|(len, ..)| *len)
            .map(|(.., v)| *v)
    }
}

fn matches(len: u32, a: &[u8], b: &[u8]) -> bool {
    a.iter().zip(b).enumerate().all(|(i, (a, b))| {
        let before = u32::try_from(i * 8).unwrap_or(u32::MAX);
        let bits = len.saturating_sub(before).min(8);
        let mask = if bits == 0 { 0 } else { 0xff_u8 << (8 - bits) };
        a & mask == b & mask
    })
}

/// All tables, empty at first.
#[derive(Debug)]
#[expect(missing_docs, reason = "named as the methods of `Maps`")]
pub struct Fakes {
    pub config: Option<Config>,
    pub epoch: u32,
    pub seconds: u32,
    /// What [`Clock::random`] answers next; it counts upwards in large steps.
    pub random: Cell<u32>,
    /// False: no flow is remembered any more.
    pub flows_fit: bool,
    pub devices: HashMap<u32, DeviceEntry>,
    pub endpoints: HashMap<AddrKey, EndpointEntry>,
    pub ipcache_exact: HashMap<AddrKey, IpcacheEntry>,
    pub ipcache: Prefixes<AddrKey, IpcacheEntry>,
    pub owned: Prefixes<AddrKey, OwnedPrefix>,
    pub nodes: HashMap<AddrKey, NodeEntry>,
    pub policy: Prefixes<PolicyKey, PolicyEntry>,
    pub flow4: Table<FlowKey4, Rc<FlowEntry>>,
    pub flow6: Table<FlowKey6, Rc<FlowEntry>>,
    pub nat4: Table<NatKey4, NatImage4>,
    pub nat6: Table<NatKey6, NatImage6>,
    pub frag4: Table<FragKey4, FragValue>,
    pub frag6: Table<FragKey6, FragValue>,
    pub services: HashMap<ServiceKey, ServiceEntry>,
    pub backends: HashMap<u32, Backend>,
    pub sockets: Table<SocketKey, SocketEntry>,
    pub steps: RefCell<Vec<Step>>,
}

impl Default for Fakes {
    fn default() -> Self {
        Self {
            config: None,
            epoch: 0,
            seconds: 1000,
            random: Cell::new(7),
            flows_fit: true,
            devices: HashMap::new(),
            endpoints: HashMap::new(),
            ipcache_exact: HashMap::new(),
            ipcache: Prefixes::default(),
            owned: Prefixes::default(),
            nodes: HashMap::new(),
            policy: Prefixes::default(),
            flow4: RefCell::default(),
            flow6: RefCell::default(),
            nat4: RefCell::default(),
            nat6: RefCell::default(),
            frag4: RefCell::default(),
            frag6: RefCell::default(),
            services: HashMap::new(),
            backends: HashMap::new(),
            sockets: RefCell::default(),
            steps: RefCell::default(),
        }
    }
}

impl Clock for Fakes {
    fn seconds(&self) -> u32 {
        self.seconds
    }

    fn random(&self) -> u32 {
        let n = self.random.get();
        self.random.set(n.wrapping_mul(1_664_525).wrapping_add(1_013_904_223));
        n
    }
}

fn put<K: Eq + Hash, V>(table: &Table<K, V>, key: K, value: V, fresh: bool) -> bool {
    let mut table = table.borrow_mut();
    if fresh && table.contains_key(&key) {
        return false;
    }
    table.insert(key, value);
    true
}

impl Maps for Fakes {
    type Ref<'a, T: 'a> = Rc<T>;

    fn config(&self) -> Option<&Config> {
        self.config.as_ref()
    }
    fn epoch(&self) -> u32 {
        self.epoch
    }
    fn device(&self, ifindex: u32) -> Option<Rc<DeviceEntry>> {
        self.devices.get(&ifindex).copied().map(Rc::new)
    }
    fn endpoint(&self, key: &AddrKey) -> Option<Rc<EndpointEntry>> {
        self.endpoints.get(key).copied().map(Rc::new)
    }
    fn ipcache_exact(&self, key: &AddrKey) -> Option<Rc<IpcacheEntry>> {
        self.ipcache_exact.get(key).copied().map(Rc::new)
    }
    fn ipcache_prefix(&self, key: &AddrKey) -> Option<Rc<IpcacheEntry>> {
        self.ipcache.longest(key).map(Rc::new)
    }
    fn owned(&self, key: &AddrKey) -> Option<Rc<OwnedPrefix>> {
        self.owned.longest(key).map(Rc::new)
    }
    fn node(&self, key: &AddrKey) -> Option<Rc<NodeEntry>> {
        self.nodes.get(key).copied().map(Rc::new)
    }
    fn policy(&self, key: &PolicyKey) -> Option<Rc<PolicyEntry>> {
        self.policy.longest(key).map(Rc::new)
    }
    fn flow4(&self, key: &FlowKey4) -> Option<Rc<FlowEntry>> {
        self.flow4.borrow().get(key).map(Rc::clone)
    }
    fn flow6(&self, key: &FlowKey6) -> Option<Rc<FlowEntry>> {
        self.flow6.borrow().get(key).map(Rc::clone)
    }
    fn flow4_insert(&self, key: &FlowKey4, value: &FlowImage) -> bool {
        self.flows_fit && put(&self.flow4, *key, Rc::new((*value).into()), false)
    }
    fn flow6_insert(&self, key: &FlowKey6, value: &FlowImage) -> bool {
        self.flows_fit && put(&self.flow6, *key, Rc::new((*value).into()), false)
    }
    fn nat4(&self, key: &NatKey4) -> Option<Rc<NatImage4>> {
        self.nat4.borrow().get(key).copied().map(Rc::new)
    }
    fn nat6(&self, key: &NatKey6) -> Option<Rc<NatImage6>> {
        self.nat6.borrow().get(key).copied().map(Rc::new)
    }
    fn nat4_insert(&self, key: &NatKey4, value: &NatImage4, fresh: bool) -> bool {
        put(&self.nat4, *key, *value, fresh)
    }
    fn nat6_insert(&self, key: &NatKey6, value: &NatImage6, fresh: bool) -> bool {
        put(&self.nat6, *key, *value, fresh)
    }
    fn frag4(&self, key: &FragKey4) -> Option<Rc<FragValue>> {
        self.frag4.borrow().get(key).copied().map(Rc::new)
    }
    fn frag6(&self, key: &FragKey6) -> Option<Rc<FragValue>> {
        self.frag6.borrow().get(key).copied().map(Rc::new)
    }
    fn frag4_insert(&self, key: &FragKey4, value: FragValue) {
        put(&self.frag4, *key, value, false);
    }
    fn frag6_insert(&self, key: &FragKey6, value: FragValue) {
        put(&self.frag6, *key, value, false);
    }
    fn service(&self, key: &ServiceKey) -> Option<Rc<ServiceEntry>> {
        self.services.get(key).copied().map(Rc::new)
    }
    fn backend(&self, index: u32) -> Option<Rc<Backend>> {
        self.backends.get(&index).copied().map(Rc::new)
    }
    fn socket(&self, key: &SocketKey) -> Option<Rc<SocketEntry>> {
        self.sockets.borrow().get(key).copied().map(Rc::new)
    }
    fn socket_insert(&self, key: &SocketKey, value: &SocketEntry) -> bool {
        put(&self.sockets, *key, *value, false)
    }
    fn note(&self, step: Step) {
        self.steps.borrow_mut().push(step);
    }
}

/// A packet's bytes.
#[derive(Debug, Clone, Copy)]
pub struct Bytes<'a>(pub &'a [u8]);

impl Packet for Bytes<'_> {
    fn len(&self) -> u32 {
        u32::try_from(self.0.len()).unwrap_or(u32::MAX)
    }

    fn read<T: Wire>(&self, offset: u32) -> Option<T> {
        self.load(offset)
    }

    fn load<T: Wire>(&self, offset: u32) -> Option<T> {
        if offset > MAX_OFFSET {
            return None;
        }
        let start = usize::try_from(offset).ok()?;
        T::from_bytes(self.0.get(start..start.checked_add(size_of::<T>())?)?)
    }
}
