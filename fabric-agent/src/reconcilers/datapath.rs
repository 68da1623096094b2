//! All kernel maps, in the one order that is safe.
//!
//! Towards more: what must be encrypted, nodes, rules that deny, rules that allow, endpoints, addresses, services.
//! Towards less: the reverse. So an address never appears before the policy for its identity, an endpoint is enforced
//! only when its rules are all there, and a rule that allows goes before the one that would have denied.
//! Nothing of the mesh is removed before the first full sync. The epoch moves once, when a pass is done.

mod run;
mod targets;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use fabric_agent_datapath::rows::{
    DeviceEntry, Effect, EndpointEntry, IpcacheEntry, NodeEntry, OwnedPrefix, PolicyEntry, PolicyKey,
};
use fabric_agent_datapath::{IfIndex, MapError};
use fabric_core::ids::Identity;
use fabric_core::policy::{CidrTable, IdentityTable};
use fabric_core::prefix::Prefix;
use ipnetwork::IpNetwork;

use super::bpf_map::{Changes, MapDriver};
use crate::plan::endpoints::Enforcement;
use crate::plan::policy::{Compiled, Documents, Subjects};
use crate::plan::{self, Clusters};
use crate::tables::{Snapshot, policy as policy_table};

pub(crate) use run::run;
pub(crate) use targets::{Effects, ServiceTarget, Targets};

/// What the kernel has by now; what others wait for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Realised {
    /// Passes since the start.
    pub(crate) passes: u64,
    /// Endpoints that are in the maps, with the identity that they have there and its policy.
    pub(crate) endpoints: BTreeMap<String, Identity>,
    /// Entries per map.
    pub(crate) sizes: Vec<(&'static str, usize)>,
    pub(crate) problems: Vec<String>,
}

/// The reconciler of all maps.
#[derive(Debug)]
pub(crate) struct DatapathReconciler {
    owned: MapDriver<IpNetwork, OwnedPrefix>,
    nodes: MapDriver<IpAddr, NodeEntry>,
    policy: MapDriver<PolicyKey, PolicyEntry>,
    devices: MapDriver<IfIndex, DeviceEntry>,
    endpoints: MapDriver<IpAddr, EndpointEntry>,
    ipcache: MapDriver<IpNetwork, IpcacheEntry>,
    services: Box<dyn ServiceTarget>,
    effects: Box<dyn Effects>,
    documents: Documents,
    cidrs: CidrTable,
    restored: bool,
    compiled: Option<Cached>,
    blocked: BTreeSet<IpNetwork>,
    passes: u64,
}

/// A compilation with what it was made from, so that nothing is compiled twice.
#[derive(Debug)]
struct Cached {
    identities: Arc<BTreeMap<Identity, crate::tables::identity::IdentityRow>>,
    policies: Arc<BTreeMap<policy_table::PolicyKey, policy_table::PolicyRow>>,
    subjects: Subjects,
    compiled: Compiled,
    problems: Vec<String>,
}

/// The wanted content of all maps.
struct Wanted {
    owned: BTreeMap<IpNetwork, OwnedPrefix>,
    nodes: BTreeMap<IpAddr, NodeEntry>,
    policy: BTreeMap<PolicyKey, PolicyEntry>,
    devices: BTreeMap<IfIndex, DeviceEntry>,
    endpoints: BTreeMap<IpAddr, EndpointEntry>,
    ipcache: BTreeMap<IpNetwork, IpcacheEntry>,
}

impl DatapathReconciler {
    pub(crate) fn new(targets: Targets) -> Self {
        Self {
            owned: MapDriver::new("owned", targets.owned),
            nodes: MapDriver::new("nodes", targets.nodes),
            policy: MapDriver::new("policy", targets.policy),
            devices: MapDriver::new("devices", targets.devices),
            endpoints: MapDriver::new("endpoints", targets.endpoints),
            ipcache: MapDriver::new("ipcache", targets.ipcache),
            services: targets.services,
            effects: targets.effects,
            documents: Documents::default(),
            cidrs: CidrTable::default(),
            restored: false,
            compiled: None,
            blocked: BTreeSet::new(),
            passes: 0,
        }
    }

    /// Reads all maps anew, so that the next pass repairs what others changed.
    pub(crate) fn reload(&mut self) -> Result<(), MapError> {
        self.owned.reload()?;
        self.nodes.reload()?;
        self.policy.reload()?;
        self.devices.reload()?;
        self.endpoints.reload()?;
        self.ipcache.reload()
    }

    /// Brings the maps as near to the snapshot as they go.
    pub(crate) fn pass(&mut self, snapshot: &Snapshot, now: Instant) -> Realised {
        let mut problems = Vec::new();
        if let Err(error) = self.load() {
            problems.push(error.to_string());
            return self.realised(snapshot, None, problems);
        }
        let old_cidrs: BTreeMap<Prefix, Identity> = self.cidrs.iter().collect();
        problems.extend(self.compile(snapshot));
        let mut wanted = self.wanted(snapshot);
        let mut changed = self.put(&mut wanted, now);
        let services = plan::services::services(snapshot.mesh.services.values(), &snapshot.mesh.clusters);
        problems
            .extend(self.services.bring_to(&services, snapshot.mesh.initialised).err().map(|error| error.to_string()));
        changed |= self.prune(&wanted, snapshot, now);
        let cidrs_changed = old_cidrs != self.cidrs.iter().collect();
        if changed || cidrs_changed {
            problems.extend(self.effects.bump_epoch().err().map(|error| error.to_string()));
        }
        problems.extend(self.forget_blocked(&snapshot.mesh.clusters).err().map(|error| error.to_string()));
        self.passes += 1;
        self.realised(snapshot, Some(&wanted), problems)
    }

    fn load(&mut self) -> Result<(), MapError> {
        self.owned.ensure_loaded()?;
        self.nodes.ensure_loaded()?;
        self.policy.ensure_loaded()?;
        self.devices.ensure_loaded()?;
        self.endpoints.ensure_loaded()?;
        self.ipcache.ensure_loaded()?;
        if !self.restored {
            // Numbers of CIDR rules go on where an earlier process left off: its flows and entries name them.
            let entries = self.ipcache.present().iter();
            let entries = entries
                .filter_map(|(prefix, entry)| Some((Prefix::from(*prefix), Identity::new(entry.identity).ok()?)));
            self.cidrs = CidrTable::restore(entries);
            self.restored = true;
        }
        Ok(())
    }

    /// Compiles policy where something that it depends on changed; gives what is wrong with documents.
    fn compile(&mut self, snapshot: &Snapshot) -> Vec<String> {
        let subjects: Subjects = snapshot
            .endpoints
            .values()
            .filter_map(|endpoint| Some((endpoint.identity?, endpoint.identity_labels.clone())))
            .collect();
        let (identities, policies) = (&snapshot.mesh.identities, &snapshot.mesh.policies);
        if let Some(cached) = &self.compiled
            && Arc::ptr_eq(&cached.identities, identities)
            && Arc::ptr_eq(&cached.policies, policies)
            && cached.subjects == subjects
        {
            return cached.problems.clone();
        }
        let (set, mut problems) = self.documents.policies(policies.values(), &snapshot.local.cluster);
        let refused = self.cidrs.update(&set.cidr_prefixes()).refused;
        problems.extend(refused.iter().map(|prefix| format!("no number is left for the CIDR rule {prefix}")));
        let known = identities.values().map(|row| (row.id, row.labels.clone()));
        let table: IdentityTable = known.chain(subjects.iter().map(|(id, labels)| (*id, labels.clone()))).collect();
        let compiled = plan::policy::compile(&set, &table, &self.cidrs, &subjects);
        self.compiled = Some(Cached {
            identities: Arc::clone(identities),
            policies: Arc::clone(policies),
            subjects,
            compiled,
            problems: problems.clone(),
        });
        problems
    }

    fn wanted(&self, snapshot: &Snapshot) -> Wanted {
        let (mesh, local) = (&snapshot.mesh, &*snapshot.local);
        let compiled = self.compiled.as_ref().map(|cached| &cached.compiled);
        let enforcement =
            |identity| compiled.map_or(Enforcement::default(), |compiled| compiled.enforcement_of(identity));
        let endpoints = plan::endpoints::endpoints(snapshot.endpoints.values(), enforcement, local);
        let cidrs: BTreeMap<Prefix, Identity> = self.cidrs.iter().collect();
        let sources = plan::ipcache::Sources {
            addresses: mesh.addresses.values(),
            nodes: mesh.nodes.values(),
            endpoints: snapshot.endpoints.values(),
            cidrs: &cidrs,
            clusters: &mesh.clusters,
        };
        Wanted {
            owned: plan::owned::owned(&mesh.clusters, local),
            nodes: plan::nodes::nodes(mesh.nodes.values(), &mesh.clusters, local),
            policy: compiled.map(|compiled| compiled.entries.clone()).unwrap_or_default(),
            devices: endpoints.devices,
            endpoints: endpoints.addresses,
            ipcache: plan::ipcache::ipcache(sources, local),
        }
    }

    /// Adds and changes; says whether a verdict on a live flow may be another now.
    fn put(&mut self, wanted: &mut Wanted, now: Instant) -> bool {
        let owned = self.owned.put(&wanted.owned, |_| true, now);
        let nodes = self.nodes.put(&wanted.nodes, |_| true, now);
        let denies = self.policy.put(&wanted.policy, |key| key.effect == Effect::Deny, now);
        self.close_incomplete(wanted);
        let allows = self.policy.put(&wanted.policy, |key| key.effect == Effect::Allow, now);
        let devices = self.devices.put(&wanted.devices, |_| true, now);
        let endpoints = self.endpoints.put(&wanted.endpoints, |_| true, now);
        let ipcache = self.ipcache.put(&wanted.ipcache, |_| true, now);
        self.forget_moved(&ipcache);
        let touched = owned.written + nodes.written + denies.written + allows.written;
        touched > 0 || !devices.replaced.is_empty() || !endpoints.replaced.is_empty() || !ipcache.replaced.is_empty()
    }

    /// A subject of which a denying rule could not be written gets no allowing ones: closed, not half open.
    fn close_incomplete(&mut self, wanted: &mut Wanted) {
        let failed: BTreeSet<u32> = wanted
            .policy
            .keys()
            .filter(|key| key.effect == Effect::Deny && self.policy.has_failed(key))
            .map(|key| key.subject)
            .collect();
        if !failed.is_empty() {
            wanted.policy.retain(|key, _| key.effect == Effect::Deny || !failed.contains(&key.subject));
        }
    }

    /// Removes; says whether a verdict on a live flow may be another now.
    fn prune(&mut self, wanted: &Wanted, snapshot: &Snapshot, now: Instant) -> bool {
        let (whole, initialised) = (snapshot.is_whole(), snapshot.mesh.initialised);
        let ipcache = self.ipcache.prune(&wanted.ipcache, |_| whole, now);
        self.forget_moved(&ipcache);
        // The node's own endpoints are known without the API: theirs go as soon as an earlier process's are known.
        let endpoints = self.endpoints.prune(&wanted.endpoints, |_| snapshot.restored, now);
        let devices = self.devices.prune(&wanted.devices, |_| snapshot.restored, now);
        let allows = self.policy.prune(&wanted.policy, |key| whole && key.effect == Effect::Allow, now);
        let denies = self.policy.prune(&wanted.policy, |key| whole && key.effect == Effect::Deny, now);
        let nodes = self.nodes.prune(&wanted.nodes, |_| initialised, now);
        let owned = self.owned.prune(&wanted.owned, |_| initialised, now);
        !(ipcache.replaced.is_empty()
            && endpoints.replaced.is_empty()
            && devices.replaced.is_empty()
            && allows.replaced.is_empty()
            && denies.replaced.is_empty()
            && nodes.replaced.is_empty()
            && owned.replaced.is_empty())
    }

    /// Flows remember identities: those of an address that changed hands must not live on.
    fn forget_moved(&self, changes: &Changes<IpNetwork, IpcacheEntry>) {
        let moved: Vec<IpNetwork> = changes
            .replaced
            .iter()
            .filter(|(prefix, old)| {
                let now = self.ipcache.present().get(prefix);
                now.is_none_or(|now| now.identity != old.identity) && Prefix::from(*prefix).is_host()
            })
            .map(|(prefix, _)| *prefix)
            .collect();
        if !moved.is_empty()
            && let Err(error) = self.effects.forget_flows(&moved)
        {
            tracing::warn!(%error, addresses = moved.len(), "flows of addresses that changed hands remain");
        }
    }

    /// Flows of a cluster that was just disconnected end at once.
    fn forget_blocked(&mut self, clusters: &Clusters) -> Result<(), MapError> {
        let blocked: BTreeSet<IpNetwork> = clusters
            .values()
            .filter(|cluster| cluster.blocked)
            .flat_map(|cluster| cluster.prefixes.iter().map(|prefix| IpNetwork::from(*prefix)))
            .collect();
        let fresh: Vec<IpNetwork> = blocked.difference(&self.blocked).copied().collect();
        if !fresh.is_empty() {
            self.effects.forget_flows(&fresh)?;
        }
        self.blocked = blocked;
        Ok(())
    }

    fn realised(&self, snapshot: &Snapshot, wanted: Option<&Wanted>, mut problems: Vec<String>) -> Realised {
        let mut realised = Realised { passes: self.passes, ..Realised::default() };
        if let Some(wanted) = wanted {
            for endpoint in snapshot.endpoints.values() {
                let Some(identity) = endpoint.identity else { continue };
                let rules = wanted.policy.iter().filter(|(key, _)| key.subject == identity.value());
                let complete = rules.clone().all(|(key, value)| self.policy.holds(key, value))
                    && endpoint.addresses.iter().all(|address| {
                        wanted.endpoints.get(address).is_some_and(|entry| self.endpoints.holds(address, entry))
                    });
                if complete {
                    realised.endpoints.insert(endpoint.id.clone(), identity);
                }
            }
        }
        realised.sizes = vec![
            self.owned.size(),
            self.nodes.size(),
            self.policy.size(),
            self.endpoints.size(),
            self.ipcache.size(),
            ("services", self.services.size()),
        ];
        let maps = [
            self.owned.problem(),
            self.nodes.problem(),
            self.policy.problem(),
            self.devices.problem(),
            self.endpoints.problem(),
            self.ipcache.problem(),
        ];
        problems.extend(maps.into_iter().flatten());
        realised.problems = problems;
        realised
    }

    /// When to come again, for what could not be written.
    pub(crate) fn retry_at(&self) -> Option<Instant> {
        let all = [
            self.owned.retry_at(),
            self.nodes.retry_at(),
            self.policy.retry_at(),
            self.devices.retry_at(),
            self.endpoints.retry_at(),
            self.ipcache.retry_at(),
        ];
        all.into_iter().flatten().min()
    }

    /// Forgets flows that no longer count.
    pub(crate) fn sweep_flows(&self) -> Result<usize, MapError> {
        self.effects.sweep_flows()
    }
}

#[cfg(test)]
mod tests;
