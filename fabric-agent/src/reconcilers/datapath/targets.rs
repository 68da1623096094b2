//! What the reconciler writes to: the pinned maps, or fakes of them.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use fabric_agent_datapath::rows::{
    DeviceEntry, EndpointEntry, IpcacheEntry, NodeEntry, OwnedPrefix, PolicyEntry, PolicyKey, Service, ServiceKey,
};
use fabric_agent_datapath::{IfIndex, MapError, Maps, Rows};
use ipnetwork::IpNetwork;
use nix::time::{ClockId, clock_gettime};

use super::super::bpf_map::Target;

/// Services, which are written whole.
pub(crate) trait ServiceTarget: Send + fmt::Debug {
    /// Writes what differs; removes what is not wanted when `prune` says so.
    fn bring_to(&mut self, wanted: &BTreeMap<ServiceKey, Service>, prune: bool) -> Result<(), MapError>;

    /// How many there are.
    fn size(&self) -> usize;
}

/// What is done beside rows.
pub(crate) trait Effects: Send + fmt::Debug {
    /// Has every flow judged anew.
    fn bump_epoch(&self) -> Result<(), MapError>;
    /// Forgets the flows with an end in these prefixes.
    fn forget_flows(&self, prefixes: &[IpNetwork]) -> Result<(), MapError>;
    /// Forgets flows that no longer count.
    fn sweep_flows(&self) -> Result<usize, MapError>;
}

/// All that the reconciler writes to.
pub(crate) struct Targets {
    pub(crate) owned: Target<IpNetwork, OwnedPrefix>,
    pub(crate) nodes: Target<IpAddr, NodeEntry>,
    pub(crate) policy: Target<PolicyKey, PolicyEntry>,
    pub(crate) devices: Target<IfIndex, DeviceEntry>,
    pub(crate) endpoints: Target<IpAddr, EndpointEntry>,
    pub(crate) ipcache: Target<IpNetwork, IpcacheEntry>,
    pub(crate) services: Box<dyn ServiceTarget>,
    pub(crate) effects: Box<dyn Effects>,
}

impl fmt::Debug for Targets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Targets").finish_non_exhaustive()
    }
}

impl Targets {
    /// The pinned maps.
    pub(crate) fn pinned(maps: &Arc<Maps>) -> Self {
        fn field<T: Rows + 'static>(maps: &Arc<Maps>, of: fn(&Maps) -> &T) -> Target<T::Key, T::Value> {
            Box::new(Field { maps: Arc::clone(maps), of })
        }
        Self {
            owned: field(maps, |maps| &maps.owned),
            nodes: field(maps, |maps| &maps.nodes),
            policy: field(maps, |maps| &maps.policy),
            devices: field(maps, |maps| &maps.devices),
            endpoints: field(maps, |maps| &maps.endpoints),
            ipcache: field(maps, |maps| &maps.ipcache),
            services: Box::new(PinnedServices { maps: Arc::clone(maps), known: BTreeMap::new(), loaded: false }),
            effects: Box::new(Pinned(Arc::clone(maps))),
        }
    }
}

/// One of the maps.
struct Field<T> {
    maps: Arc<Maps>,
    of: fn(&Maps) -> &T,
}

impl<T: Rows> Rows for Field<T> {
    type Key = T::Key;
    type Value = T::Value;

    fn upsert(&self, key: &T::Key, value: &T::Value) -> Result<(), MapError> {
        (self.of)(&self.maps).upsert(key, value)
    }

    fn upsert_all(&self, rows: &[(T::Key, T::Value)]) -> Result<(), MapError> {
        (self.of)(&self.maps).upsert_all(rows)
    }

    fn delete(&self, key: &T::Key) -> Result<bool, MapError> {
        (self.of)(&self.maps).delete(key)
    }

    fn get(&self, key: &T::Key) -> Result<Option<T::Value>, MapError> {
        (self.of)(&self.maps).get(key)
    }

    fn list(&self) -> Result<Vec<(T::Key, T::Value)>, MapError> {
        (self.of)(&self.maps).list()
    }

    fn canonical(&self, key: &T::Key) -> T::Key {
        (self.of)(&self.maps).canonical(key)
    }
}

#[derive(Debug)]
struct PinnedServices {
    maps: Arc<Maps>,
    known: BTreeMap<ServiceKey, Service>,
    loaded: bool,
}

impl ServiceTarget for PinnedServices {
    fn bring_to(&mut self, wanted: &BTreeMap<ServiceKey, Service>, prune: bool) -> Result<(), MapError> {
        let services = &self.maps.services;
        if !self.loaded {
            self.known = services.list()?.into_iter().collect();
            self.loaded = true;
        }
        let mut outcome = Ok(());
        for (key, service) in wanted {
            if self.known.get(key) == Some(service) {
                continue;
            }
            match services.replace_service(key, service) {
                Ok(_) => {
                    self.known.insert(*key, service.clone());
                }
                // One that fails blocks none beside it; the last error is shown.
                Err(error) => outcome = Err(error),
            }
        }
        if prune {
            let gone: Vec<ServiceKey> = self.known.keys().filter(|key| !wanted.contains_key(key)).copied().collect();
            for key in gone {
                match services.delete(&key) {
                    Ok(_) => {
                        self.known.remove(&key);
                    }
                    Err(error) => outcome = Err(error),
                }
            }
        }
        outcome
    }

    fn size(&self) -> usize {
        self.known.len()
    }
}

#[derive(Debug)]
struct Pinned(Arc<Maps>);

impl Effects for Pinned {
    fn bump_epoch(&self) -> Result<(), MapError> {
        self.0.bump_epoch().map(|_| ())
    }

    fn forget_flows(&self, prefixes: &[IpNetwork]) -> Result<(), MapError> {
        self.0.flows.delete_prefixes(prefixes)?;
        self.0.nat.delete_prefixes(prefixes)?;
        Ok(())
    }

    fn sweep_flows(&self) -> Result<usize, MapError> {
        // The programs' clock: since the system started, without the time it slept.
        let Ok(now) = clock_gettime(ClockId::CLOCK_MONOTONIC) else { return Ok(0) };
        self.0.flows.delete_expired(u32::try_from(now.tv_sec()).unwrap_or(0))
    }
}
