//! The order of writes, and what happens when the kernel refuses, over maps in memory.

use std::sync::Mutex;

use fabric_agent_datapath::rows::{Service, ServiceKey};
use fabric_core::labels::LabelSet;

use super::*;
use crate::plan::fixtures;
use crate::reconcilers::bpf_map::fake::{Event, FakeMap};
use crate::tables::Mesh;
use crate::tables::identity::IdentityRow;
use crate::tables::policy::PolicyRow;

#[derive(Debug, Default)]
struct Log {
    epochs: usize,
    forgotten: Vec<IpNetwork>,
}

#[derive(Debug, Clone, Default)]
struct FakeEffects(Arc<Mutex<Log>>);

impl Effects for FakeEffects {
    fn bump_epoch(&self) -> Result<(), MapError> {
        self.0.lock().unwrap().epochs += 1;
        Ok(())
    }

    fn forget_flows(&self, prefixes: &[IpNetwork]) -> Result<(), MapError> {
        self.0.lock().unwrap().forgotten.extend(prefixes);
        Ok(())
    }

    fn sweep_flows(&self) -> Result<usize, MapError> {
        Ok(0)
    }
}

#[derive(Debug)]
struct NoServices;

impl ServiceTarget for NoServices {
    fn bring_to(&mut self, _: &BTreeMap<ServiceKey, Service>, _: bool) -> Result<(), MapError> {
        Ok(())
    }

    fn size(&self) -> usize {
        0
    }
}

/// The kernel in memory, and a node with one endpoint `db` that a policy may select.
struct Bench {
    reconciler: DatapathReconciler,
    policy: FakeMap<PolicyKey, PolicyEntry>,
    endpoints: FakeMap<IpAddr, EndpointEntry>,
    ipcache: FakeMap<IpNetwork, IpcacheEntry>,
    owned: FakeMap<IpNetwork, OwnedPrefix>,
    effects: FakeEffects,
    snapshot: Snapshot,
}

const DB: u32 = 65_801;
const WEB: u32 = 65_800;

fn labels(app: &str) -> LabelSet {
    let app = format!("k8s:app={app}");
    let place = ["k8s:io.kubernetes.pod.namespace=shop", "k8s:io.cilium.k8s.policy.cluster=eu"];
    LabelSet::parse(std::iter::once(app.as_str()).chain(place)).unwrap()
}

fn document(effect: &str) -> PolicyRow {
    let section = if effect == "deny" { "ingressDeny" } else { "ingress" };
    let document = serde_json::json!({
        "apiVersion": "cilium.io/v2", "kind": "CiliumNetworkPolicy",
        "metadata": {"name": effect, "namespace": "shop"},
        "spec": {
            "endpointSelector": {"matchLabels": {"app": "db"}},
            section: [{"fromEndpoints": [{"matchLabels": {"app": "web"}}]}],
        },
    });
    PolicyRow {
        kind: "CiliumNetworkPolicy".to_owned(),
        kubernetes_namespace: "shop".to_owned(),
        name: effect.to_owned(),
        document: document.to_string(),
    }
}

impl Bench {
    fn new() -> Self {
        let (policy, endpoints) = (FakeMap::default(), FakeMap::default());
        let (ipcache, owned, effects) = (FakeMap::default(), FakeMap::default(), FakeEffects::default());
        let targets = Targets {
            owned: Box::new(FakeMap::clone(&owned)),
            nodes: Box::new(FakeMap::default()),
            policy: Box::new(FakeMap::clone(&policy)),
            devices: Box::new(FakeMap::default()),
            endpoints: Box::new(FakeMap::clone(&endpoints)),
            ipcache: Box::new(FakeMap::clone(&ipcache)),
            services: Box::new(NoServices),
            effects: Box::new(effects.clone()),
        };
        let mut db = fixtures::endpoint("shop/db", "10.64.1.2", DB);
        db.identity_labels = labels("db");
        let identity = |id, app| IdentityRow { id: Identity::new(id).unwrap(), labels: labels(app) };
        let identities = [identity(WEB, "web"), identity(DB, "db")];
        let mesh = Mesh {
            clusters: Arc::new(fixtures::clusters()),
            identities: Arc::new(identities.into_iter().map(|row| (row.id, row)).collect()),
            initialised: true,
            ..Mesh::default()
        };
        let endpoints_table = Arc::new(BTreeMap::from([(db.id.clone(), db)]));
        let snapshot =
            Snapshot { mesh, endpoints: endpoints_table, restored: true, local: Arc::new(fixtures::local()) };
        let reconciler = DatapathReconciler::new(targets);
        Self { reconciler, policy, endpoints, ipcache, owned, effects, snapshot }
    }

    fn apply(&mut self, policies: &[PolicyRow]) {
        self.snapshot.mesh.policies = Arc::new(policies.iter().map(|row| (row.key(), row.clone())).collect());
    }

    fn pass(&mut self) -> Realised {
        self.reconciler.pass(&self.snapshot, Instant::now())
    }

    fn db_entry(&self) -> Option<EndpointEntry> {
        self.endpoints.rows().get(&"10.64.1.2".parse::<IpAddr>().unwrap()).copied()
    }

    fn rules(&self, effect: Effect) -> Vec<PolicyKey> {
        self.policy.rows().into_keys().filter(|key| key.effect == effect).collect()
    }

    fn epochs(&self) -> usize {
        self.effects.0.lock().unwrap().epochs
    }
}

#[test]
fn an_endpoint_is_realised_with_its_policy() {
    let mut bench = Bench::new();
    bench.apply(&[document("allow")]);
    let realised = bench.pass();
    assert_eq!(realised.endpoints["shop/db"].value(), DB);
    assert!(realised.problems.is_empty(), "{:?}", realised.problems);
    assert!(bench.db_entry().unwrap().flags.enforce_ingress);
    assert!(bench.rules(Effect::Allow).iter().any(|key| key.peer == WEB && key.subject == DB));
    assert_eq!(bench.epochs(), 1);
    bench.pass();
    assert_eq!(bench.epochs(), 1, "nothing changed");
}

#[test]
fn rules_that_deny_come_first_and_go_last() {
    let mut bench = Bench::new();
    bench.apply(&[document("allow"), document("deny")]);
    bench.pass();
    let position =
        |events: &[Event<PolicyKey>], wanted: fn(&Event<PolicyKey>) -> bool| events.iter().position(wanted).unwrap();
    let events = bench.policy.events();
    let deny = position(&events, |event| matches!(event, Event::Put(key) if key.effect == Effect::Deny));
    let allow = position(&events, |event| matches!(event, Event::Put(key) if key.effect == Effect::Allow));
    assert!(deny < allow, "{events:?}");
    bench.apply(&[]);
    bench.pass();
    let events = bench.policy.events();
    let deny = position(&events, |event| matches!(event, Event::Delete(key) if key.effect == Effect::Deny));
    let allow = position(&events, |event| matches!(event, Event::Delete(key) if key.effect == Effect::Allow));
    assert!(allow < deny, "{events:?}");
    assert!(bench.policy.rows().is_empty());
    assert!(!bench.db_entry().unwrap().flags.enforce_ingress);
}

#[test]
fn a_subject_whose_denying_rule_does_not_fit_is_closed() {
    let mut bench = Bench::new();
    bench.apply(&[document("allow"), document("deny")]);
    bench.pass();
    let deny = bench.rules(Effect::Deny)[0];
    let mut full = Bench::new();
    full.apply(&[document("allow"), document("deny")]);
    full.policy.refuse(deny);
    let realised = full.pass();
    assert!(full.rules(Effect::Allow).is_empty(), "{:?}", full.policy.rows());
    assert!(!realised.problems.is_empty());
    assert!(full.db_entry().unwrap().flags.enforce_ingress, "enforced, so what no rule allows is dropped");
    assert!(full.reconciler.retry_at().is_some());
}

#[test]
fn nothing_of_the_mesh_goes_before_the_first_full_sync() {
    let mut bench = Bench::new();
    let left = ("10.65.0.9/32".parse::<IpNetwork>().unwrap(), IpcacheEntry::local(131_330));
    let old = ("10.66.0.0/16".parse::<IpNetwork>().unwrap(), OwnedPrefix::default());
    bench.ipcache.meddle(left.0, left.1);
    bench.owned.meddle(old.0, old.1);
    bench.snapshot.mesh.initialised = false;
    bench.pass();
    assert!(bench.ipcache.rows().contains_key(&left.0) && bench.owned.rows().contains_key(&old.0));
    bench.snapshot.mesh.initialised = true;
    bench.pass();
    assert!(!bench.ipcache.rows().contains_key(&left.0) && !bench.owned.rows().contains_key(&old.0));
}

#[test]
fn flows_of_an_address_that_changed_hands_are_forgotten() {
    let mut bench = Bench::new();
    bench.pass();
    assert!(bench.effects.0.lock().unwrap().forgotten.is_empty());
    let rows = Arc::make_mut(&mut bench.snapshot.endpoints);
    rows.get_mut("shop/db").unwrap().identity = Some(Identity::new(WEB).unwrap());
    bench.pass();
    let address = "10.64.1.2/32".parse::<IpNetwork>().unwrap();
    assert_eq!(bench.effects.0.lock().unwrap().forgotten, [address]);
    assert_eq!(bench.ipcache.rows()[&address].identity, WEB);
}

#[test]
fn a_removed_endpoint_is_gone_even_while_the_api_is_away() {
    let mut bench = Bench::new();
    bench.snapshot.mesh.initialised = false;
    bench.pass();
    bench.snapshot.endpoints = Arc::default();
    let realised = bench.pass();
    assert!(bench.db_entry().is_none());
    assert!(realised.endpoints.is_empty());
}

/// A restarted agent knows its endpoints only after a while; packets must not notice.
#[test]
fn an_earlier_processs_endpoints_stay_until_all_are_known() {
    let mut bench = Bench::new();
    bench.pass();
    bench.snapshot.endpoints = Arc::default();
    bench.snapshot.restored = false;
    bench.pass();
    assert!(bench.db_entry().is_some());
    bench.snapshot.restored = true;
    bench.pass();
    assert!(bench.db_entry().is_none());
}

#[test]
fn flows_of_a_disconnected_cluster_end_once() {
    let mut bench = Bench::new();
    Arc::make_mut(&mut bench.snapshot.mesh.clusters).get_mut("us").unwrap().blocked = true;
    bench.pass();
    bench.pass();
    let forgotten = bench.effects.0.lock().unwrap().forgotten.clone();
    assert_eq!(forgotten, ["10.65.0.0/16".parse::<IpNetwork>().unwrap()]);
    assert!(bench.owned.rows()[&"10.65.0.0/16".parse::<IpNetwork>().unwrap()].blocked);
}
