//! The loaded programs, with maps filled from those in memory.

use aya::{
    Ebpf, EbpfLoader, Pod,
    maps::{Array, HashMap, LpmTrie, MapData, PerCpuArray, lpm_trie::Key},
    programs::{SchedClassifier, TestRun as _, TestRunOptions},
};
use fabric_ebpf_abi::{Config, map};
use fabric_ebpf_logic::{
    WORDS, Workspace,
    fakes::{Fakes, Prefixes},
};
use nix::{
    sched::{CpuSet, sched_setaffinity},
    time::{ClockId, clock_gettime},
    unistd::Pid,
};

/// `TC_ACT_REDIRECT`.
pub(crate) const REDIRECT: u32 = 7;

static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/programs.o"));

/// Seconds of the clock that the programs read.
pub(crate) fn seconds() -> u32 {
    let now = clock_gettime(ClockId::CLOCK_MONOTONIC_COARSE).unwrap();
    u32::try_from(now.tv_sec()).unwrap()
}

/// The programs on one CPU.
pub(crate) struct Kernel {
    ebpf: Ebpf,
    cpu: usize,
}

impl Kernel {
    pub(crate) fn load(fakes: &Fakes) -> Self {
        let cpu = 0;
        let mut cpus = CpuSet::new();
        cpus.set(cpu).unwrap();
        sched_setaffinity(Pid::from_raw(0), &cpus).unwrap();
        let mut loader = EbpfLoader::new();
        for small in [map::NAT4, map::NAT6, map::FRAG4, map::FRAG6, map::SOCKETS] {
            loader.map_max_entries(small, 4096);
        }
        let mut ebpf = loader.load(OBJECT).unwrap();
        for hook in crate::compare::HOOKS {
            program(&mut ebpf, hook).load().unwrap();
        }
        let mut kernel = Self { ebpf, cpu };
        kernel.fill(fakes);
        kernel
    }

    fn fill(&mut self, fakes: &Fakes) {
        self.hash(map::DEVICES, &fakes.devices);
        self.hash(map::ENDPOINTS, &fakes.endpoints);
        self.hash(map::IPCACHE_EXACT, &fakes.ipcache_exact);
        self.hash(map::NODES, &fakes.nodes);
        self.hash(map::SERVICES, &fakes.services);
        self.prefixes(map::IPCACHE, &fakes.ipcache);
        self.prefixes(map::OWNED, &fakes.owned);
        self.prefixes(map::POLICY, &fakes.policy);
        let mut config: Array<&mut MapData, Config> = self.map(map::CONFIG);
        config.set(0, fakes.config.unwrap(), 0).unwrap();
        self.set_epoch(fakes.epoch);
    }

    fn map<'a, M: TryFrom<&'a mut aya::maps::Map, Error = aya::maps::MapError>>(&'a mut self, name: &str) -> M {
        M::try_from(self.ebpf.map_mut(name).unwrap()).unwrap()
    }

    fn hash<K: Pod, V: Pod>(&mut self, name: &str, rows: &std::collections::HashMap<K, V>) {
        let mut table: HashMap<&mut MapData, K, V> = self.map(name);
        for (key, value) in rows {
            table.insert(key, value, 0).unwrap();
        }
    }

    fn prefixes<K: Pod + fabric_ebpf_logic::fakes::Bits, V: Pod>(&mut self, name: &str, rows: &Prefixes<K, V>) {
        let mut table: LpmTrie<&mut MapData, K, V> = self.map(name);
        for (len, key, value) in rows.iter() {
            table.insert(&Key::new(*len, *key), value, 0).unwrap();
        }
    }

    pub(crate) fn clear_policy(&mut self) {
        let mut table: LpmTrie<&mut MapData, fabric_ebpf_abi::PolicyKey, fabric_ebpf_abi::PolicyEntry> =
            self.map(map::POLICY);
        let keys: Vec<_> = table.keys().map(Result::unwrap).collect();
        for key in keys {
            table.remove(&key).unwrap();
        }
    }

    pub(crate) fn set_epoch(&mut self, epoch: u32) {
        let mut table: Array<&mut MapData, u32> = self.map(map::EPOCH);
        table.set(0, epoch, 0).unwrap();
    }

    /// Runs a program on a packet: its return code, its decision, the packet as it left it.
    pub(crate) fn run(&mut self, hook: &str, bytes: &[u8]) -> (u32, Workspace, Vec<u8>) {
        let mut out = vec![0; 4096];
        let options = TestRunOptions { data_in: Some(bytes), data_out: Some(&mut out), ..TestRunOptions::new() };
        let result =
            program(&mut self.ebpf, hook).test_run(options).unwrap_or_else(|e| panic!("{hook}: {e:?} {bytes:02x?}"));
        out.truncate(result.data_size_out.try_into().unwrap());
        let cpu = self.cpu;
        let table: PerCpuArray<&mut MapData, [u64; WORDS]> = self.map(map::WORKSPACE);
        let workspace = Workspace::from_words(&table.get(&0, 0).unwrap()[cpu]);
        (result.return_value, workspace, out)
    }
}

fn program<'a>(ebpf: &'a mut Ebpf, hook: &str) -> &'a mut SchedClassifier {
    ebpf.program_mut(hook).unwrap().try_into().unwrap()
}
