//! Services and their backends.
//!
//! A service's backends stand side by side in an array; the service's own entry says where and how many. A change writes
//! a new run, then the entry in one step, and lets the old run rest before it is used again: a program that read the old
//! entry may still read the old run.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    path::Path,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use fabric_ebpf_abi as abi;
use fabric_ebpf_abi::{Addr, Be16};

use super::{
    layouts::{address_of, family_of},
    table::{Changed, Layout, MapError, Rows as _, Table},
};
use crate::{
    load::LoadError,
    rows::{Service, ServiceKey},
};

/// How long a run rests after its service moved away: programs take microseconds.
const REST: Duration = Duration::from_secs(1);

/// Where a service's backends stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Run {
    base: u32,
    count: u32,
    id: u32,
}

/// Services by address.
#[derive(Debug, Clone, Copy)]
pub(super) enum ServiceLayout {}

impl Layout for ServiceLayout {
    type Key = ServiceKey;
    type Value = Run;
    type RawKey = abi::ServiceKey;
    type RawValue = abi::ServiceEntry;
    const MAP: &'static str = abi::map::SERVICES;

    fn raw_key(key: ServiceKey) -> abi::ServiceKey {
        abi::ServiceKey {
            addr: Addr::from(key.frontend.ip()),
            port: Be16::new(key.frontend.port()),
            proto: key.protocol,
            family: family_of(key.frontend.ip()) as u8,
        }
    }

    fn raw_value(run: Run) -> abi::ServiceEntry {
        abi::ServiceEntry { count: run.count, base: run.base, id: run.id, flags: 0 }
    }

    fn key(raw: abi::ServiceKey) -> Option<ServiceKey> {
        let frontend = SocketAddr::new(address_of(raw.family, raw.addr)?, raw.port.get());
        Some(ServiceKey { frontend, protocol: raw.proto })
    }

    fn value(raw: abi::ServiceEntry) -> Option<Run> {
        Some(Run { base: raw.base, count: raw.count, id: raw.id })
    }
}

/// Backends by index; `None` where none was written.
#[derive(Debug, Clone, Copy)]
pub(super) enum BackendLayout {}

impl Layout for BackendLayout {
    type Key = u32;
    type Value = Option<SocketAddr>;
    type RawKey = u32;
    type RawValue = abi::Backend;
    const MAP: &'static str = abi::map::BACKENDS;

    fn raw_key(index: u32) -> u32 {
        index
    }

    fn raw_value(backend: Option<SocketAddr>) -> abi::Backend {
        let (addr, port, family) = match backend {
            Some(at) => (Addr::from(at.ip()), at.port(), family_of(at.ip()) as u8),
            None => (Addr::NONE, 0, 0),
        };
        abi::Backend { addr, port: Be16::new(port), family, flags: 0 }
    }

    fn key(raw: u32) -> Option<u32> {
        Some(raw)
    }

    fn value(raw: abi::Backend) -> Option<Option<SocketAddr>> {
        Some(address_of(raw.family, raw.addr).map(|ip| SocketAddr::new(ip, raw.port.get())))
    }
}

/// Which places of the array are taken.
#[derive(Debug)]
struct Runs {
    size: u32,
    /// Length by first place; resting runs as well.
    taken: BTreeMap<u32, u32>,
    resting: Vec<(Instant, u32)>,
}

impl Runs {
    fn new(size: u32, taken: impl IntoIterator<Item = (u32, u32)>) -> Self {
        Self { size, taken: taken.into_iter().filter(|(_, count)| *count > 0).collect(), resting: Vec::new() }
    }

    /// The first gap that is wide enough.
    fn take(&mut self, count: u32, now: Instant) -> Option<u32> {
        if count == 0 {
            return Some(0);
        }
        let rested = |since: Instant| now.saturating_duration_since(since) >= REST;
        for (_, base) in self.resting.extract_if(.., |(since, _)| rested(*since)) {
            self.taken.remove(&base);
        }
        let mut at = 0_u32;
        for (&base, &length) in &self.taken {
            if base.saturating_sub(at) >= count {
                break;
            }
            at = at.max(base.saturating_add(length));
        }
        if self.size.saturating_sub(at) < count {
            return None;
        }
        self.taken.insert(at, count);
        Some(at)
    }

    /// Nothing points at it any more.
    fn rest(&mut self, base: u32, now: Instant) {
        if self.taken.contains_key(&base) {
            self.resting.push((now, base));
        }
    }

    /// Nothing ever pointed at it.
    fn give_back(&mut self, base: u32) {
        self.taken.remove(&base);
    }
}

/// Services and who serves them.
#[derive(Debug)]
pub struct Services {
    entries: Table<ServiceLayout>,
    backends: Table<BackendLayout>,
    runs: Mutex<Runs>,
}

impl Services {
    pub(super) fn open(map_dir: &Path, read_only: bool) -> Result<Self, LoadError> {
        let entries: Table<ServiceLayout> = Table::open(map_dir, read_only)?;
        let backends: Table<BackendLayout> = Table::open(map_dir, read_only)?;
        let taken = entries.list().map_err(|e| LoadError::Adopt(Box::new(e)))?;
        let runs = Runs::new(backends.size(), taken.iter().map(|(_, run)| (run.base, run.count)));
        Ok(Self { entries, backends, runs: Mutex::new(runs) })
    }

    fn runs(&self) -> MutexGuard<'_, Runs> {
        // The table of runs is consistent between any two of its statements.
        self.runs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes a service be served by exactly these, in one step for every look-up; says whether that changed anything.
    ///
    /// # Errors
    /// When a map is full, a backend is of another family than the frontend, or the kernel refuses: then the service is
    /// as it was.
    pub fn replace_service(&self, key: &ServiceKey, service: &Service) -> Result<bool, MapError> {
        if service.backends.iter().any(|b| b.is_ipv4() != key.frontend.is_ipv4()) {
            let what = "a backend of another family than its service";
            return Err(MapError::Invalid { map: BackendLayout::MAP, what });
        }
        let full = || MapError::Full { map: BackendLayout::MAP, size: self.backends.size() };
        let count = u32::try_from(service.backends.len()).map_err(|_| full())?;
        let mut runs = self.runs();
        let old = self.entries.get(key)?;
        if let Some(old) = old
            && old.id == service.id
            && self.backends_of(old)? == service.backends
        {
            return Ok(false);
        }
        let base = runs.take(count, Instant::now()).ok_or_else(full)?;
        let places = (base..).zip(service.backends.iter().map(|b| Some(*b)));
        let written = self.backends.upsert_all(&places.collect::<Vec<_>>());
        let written = written.and_then(|()| self.entries.upsert(key, &Run { base, count, id: service.id }));
        if let Err(e) = written {
            runs.give_back(base);
            return Err(e);
        }
        if let Some(old) = old.filter(|o| o.count > 0) {
            runs.rest(old.base, Instant::now());
        }
        Ok(true)
    }

    /// Forgets a service; says whether it was there.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn delete(&self, key: &ServiceKey) -> Result<bool, MapError> {
        let mut runs = self.runs();
        let Some(old) = self.entries.get(key)? else { return Ok(false) };
        let deleted = self.entries.delete(key)?;
        if old.count > 0 {
            runs.rest(old.base, Instant::now());
        }
        Ok(deleted)
    }

    /// One service with its backends.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn get(&self, key: &ServiceKey) -> Result<Option<Service>, MapError> {
        let Some(run) = self.entries.get(key)? else { return Ok(None) };
        Ok(Some(Service { id: run.id, backends: self.backends_of(run)? }))
    }

    /// All services with their backends, in the order of their keys.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn list(&self) -> Result<Vec<(ServiceKey, Service)>, MapError> {
        let found = self.entries.list()?.into_iter();
        found.map(|(key, run)| Ok((key, Service { id: run.id, backends: self.backends_of(run)? }))).collect()
    }

    /// Makes exactly these services be there, touching only what differs.
    ///
    /// # Errors
    /// As [`Self::replace_service`].
    pub fn replace_all(&self, services: &BTreeMap<ServiceKey, Service>) -> Result<Changed, MapError> {
        let mut changed = Changed::default();
        for (key, service) in services {
            changed.written += usize::from(self.replace_service(key, service)?);
        }
        for (key, _) in self.entries.list()? {
            if !services.contains_key(&key) {
                changed.deleted += usize::from(self.delete(&key)?);
            }
        }
        Ok(changed)
    }

    fn backends_of(&self, run: Run) -> Result<Vec<SocketAddr>, MapError> {
        let end = run.base.saturating_add(run.count).min(self.backends.size());
        let places = (run.base..end).map(|index| self.backends.get(&index));
        places.filter_map(|found| found.map(Option::flatten).transpose()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_do_not_overlap_and_rest_before_they_are_used_again() {
        let start = Instant::now();
        let mut runs = Runs::new(10, [(2, 3), (0, 0)]);
        assert_eq!(runs.take(2, start), Some(0), "the gap before what was adopted");
        assert_eq!(runs.take(3, start), Some(5));
        assert_eq!(runs.take(0, start), Some(0), "nobody needs no place");
        runs.rest(2, start);
        assert_eq!(runs.take(3, start), None, "2 left at the end, 3 resting");
        assert_eq!(runs.take(3, start + REST), Some(2));
        runs.give_back(2);
        assert_eq!(runs.take(3, start + REST), Some(2));
        assert_eq!(runs.take(2, start + REST), Some(8));
        assert_eq!(runs.take(1, start + REST), None);
    }

    #[test]
    fn services_and_backends_are_read_back() {
        for frontend in ["172.30.0.1:80", "[fdfa:5e:1ce::1]:53"] {
            let key = ServiceKey { frontend: frontend.parse().unwrap(), protocol: 17 };
            assert_eq!(ServiceLayout::key(ServiceLayout::raw_key(key)), Some(key));
            let backend = Some(key.frontend);
            assert_eq!(BackendLayout::value(BackendLayout::raw_value(backend)), Some(backend));
        }
        assert_eq!(BackendLayout::value(BackendLayout::raw_value(None)), Some(None));
    }
}
