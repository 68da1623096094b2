//! Policy entries of the node's endpoints: what the rules say of each identity that lives here.

use std::collections::{BTreeMap, BTreeSet};

use fabric_agent_datapath::rows::{
    Direction as RowDirection, Effect, PolicyEntry, PolicyKey as RowKey, PortPrefix, Traffic,
};
use fabric_core::ids::Identity;
use fabric_core::labels::LabelSet;
use fabric_core::manifest::Object;
use fabric_core::names::ClusterName;
use fabric_core::policy::{
    Action, CidrTable, Compiler, Direction, EntryKey, EntryValue, IdentityTable, Policy, PolicySet, resolve,
};

use super::endpoints::Enforcement;
use crate::tables::policy::{PolicyKey, PolicyRow};

/// Identities of this node's endpoints, with all their labels.
pub(crate) type Subjects = BTreeMap<Identity, LabelSet>;

/// The outcome of a compilation.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Compiled {
    pub(crate) entries: BTreeMap<RowKey, PolicyEntry>,
    pub(crate) enforcement: BTreeMap<Identity, Enforcement>,
}

impl Compiled {
    pub(crate) fn enforcement_of(&self, identity: Identity) -> Enforcement {
        self.enforcement.get(&identity).copied().unwrap_or_default()
    }
}

/// Documents already read, so that a change of one does not read all.
#[derive(Debug, Default)]
pub(crate) struct Documents {
    read: BTreeMap<PolicyKey, (PolicyRow, Result<Option<Policy>, String>)>,
}

impl Documents {
    /// The policies of these documents, and what is wrong with those that could not be read.
    pub(crate) fn policies<'a>(
        &mut self,
        rows: impl IntoIterator<Item = &'a PolicyRow>,
        cluster: &ClusterName,
    ) -> (PolicySet, Vec<String>) {
        let mut present = BTreeSet::new();
        for row in rows {
            let key = row.key();
            if self.read.get(&key).is_none_or(|(known, _)| known != row) {
                let policy = Object::from_json(&row.document).map(|object| resolve(&object, cluster));
                self.read.insert(key.clone(), (row.clone(), policy.map_err(|error| error.to_string())));
            }
            present.insert(key);
        }
        self.read.retain(|key, _| present.contains(key));
        let policies = self.read.values().filter_map(|(_, policy)| policy.as_ref().ok()?.clone()).collect();
        let problems = self.read.values().filter_map(|(row, policy)| {
            let why = policy.as_ref().err()?;
            Some(format!("{} {}/{} is not enforced: {why}", row.kind, row.kubernetes_namespace, row.name))
        });
        (policies, problems.collect())
    }
}

/// Compiles the policies that select these subjects.
pub(crate) fn compile(
    policies: &PolicySet,
    identities: &IdentityTable,
    cidrs: &CidrTable,
    subjects: &Subjects,
) -> Compiled {
    let compiler = Compiler { policies, identities, cidrs };
    let mut compiled = Compiled::default();
    for (subject, labels) in subjects {
        let policy = compiler.compile(*subject, labels);
        let enforcement = Enforcement { ingress: policy.enforce_ingress, egress: policy.enforce_egress };
        compiled.enforcement.insert(*subject, enforcement);
        compiled
            .entries
            .extend(policy.entries().map(|(key, value)| (row(*subject, key, value), PolicyEntry::default())));
    }
    compiled
}

fn row(subject: Identity, key: &EntryKey, value: &EntryValue) -> RowKey {
    let block = key.block;
    let traffic = match (block.protocol, PortPrefix::new(block.port, block.prefix)) {
        (0, _) => Traffic::Any,
        (protocol, Ok(ports)) => Traffic::Port(protocol, ports),
        // No bits of the port count.
        (protocol, Err(_)) => Traffic::Protocol(protocol),
    };
    RowKey {
        subject: subject.value(),
        peer: key.peer.value(),
        direction: match key.direction {
            Direction::Ingress => RowDirection::Ingress,
            Direction::Egress => RowDirection::Egress,
        },
        effect: match value.action {
            Action::Allow => Effect::Allow,
            Action::Deny => Effect::Deny,
        },
        traffic,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(texts: &[&str]) -> LabelSet {
        LabelSet::parse(texts.iter().copied()).unwrap()
    }

    fn endpoint(app: &str, cluster: &str) -> LabelSet {
        let (app, cluster) = (format!("k8s:app={app}"), format!("k8s:io.cilium.k8s.policy.cluster={cluster}"));
        labels(&[&app, "k8s:io.kubernetes.pod.namespace=shop", &cluster])
    }

    fn document(name: &str) -> PolicyRow {
        let document = serde_json::json!({
            "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
            "metadata": {"name": name, "namespace": "shop"},
            "spec": {
                "podSelector": {"matchLabels": {"app": "db"}},
                "policyTypes": ["Ingress"],
                "ingress": [{"from": [{"podSelector": {"matchLabels": {"app": "web"}}}],
                             "ports": [{"protocol": "TCP", "port": 5432}]}],
            },
        });
        PolicyRow {
            kind: "NetworkPolicy".to_owned(),
            kubernetes_namespace: "shop".to_owned(),
            name: name.to_owned(),
            document: document.to_string(),
        }
    }

    fn id(n: u32) -> Identity {
        Identity::new(n).unwrap()
    }

    #[test]
    fn a_selected_subject_is_enforced_and_its_peer_allowed() {
        let cluster = "eu".parse().unwrap();
        let (policies, problems) = Documents::default().policies(&[document("db-in")], &cluster);
        assert!(problems.is_empty(), "{problems:?}");
        let identities = [(id(65_800), endpoint("web", "eu")), (id(65_801), endpoint("db", "eu"))];
        let identities: IdentityTable = identities.into_iter().collect();
        let subjects = Subjects::from([(id(65_801), endpoint("db", "eu")), (id(65_800), endpoint("web", "eu"))]);
        let compiled = compile(&policies, &identities, &CidrTable::default(), &subjects);
        assert_eq!(compiled.enforcement_of(id(65_801)), Enforcement { ingress: true, egress: false });
        assert_eq!(compiled.enforcement_of(id(65_800)), Enforcement::default());
        let key = RowKey {
            subject: 65_801,
            direction: RowDirection::Ingress,
            peer: 65_800,
            effect: Effect::Allow,
            traffic: Traffic::Port(6, PortPrefix::exact(5432)),
        };
        assert!(compiled.entries.contains_key(&key), "{:?}", compiled.entries);
    }

    #[test]
    fn a_damaged_document_is_named_and_the_others_count() {
        let mut damaged = document("damaged");
        damaged.document = "{".to_owned();
        let mut documents = Documents::default();
        let cluster = "eu".parse().unwrap();
        let (policies, problems) = documents.policies(&[document("db-in"), damaged], &cluster);
        assert_eq!(policies.len(), 1);
        assert!(problems[0].contains("shop/damaged"), "{problems:?}");
        let (policies, problems) = documents.policies(&[], &cluster);
        assert!(policies.is_empty() && problems.is_empty());
    }
}
