//! The last synced state on disk: what the agent starts from while its API is away.
//!
//! It is stale by nature, so that losing it costs a full list and nothing else: a damaged file is set aside.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use fabric_core::ids::{Generation, Revision};
use fabric_core::names::{Namespace, ObjectName};
use fabric_core::prefix::Prefix;
use serde::{Deserialize, Serialize};

use crate::sys::files;
use crate::tables::Mesh;
use crate::tables::address::AddressRow;
use crate::tables::cluster::ClusterRow;
use crate::tables::identity::IdentityRow;
use crate::tables::node::NodeRow;
use crate::tables::policy::PolicyRow;
use crate::tables::service::ServiceRow;

/// Layout of the file.
const VERSION: u32 = 1;

/// What the cluster allotted to this node when it registered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Registration {
    pub(crate) node: NodeRow,
    pub(crate) cluster: ClusterRow,
    pub(crate) machine: Option<MachineGrant>,
}

/// The workload that this machine is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct MachineGrant {
    pub(crate) kubernetes_namespace: Namespace,
    pub(crate) name: ObjectName,
    /// Without source: `app=db`.
    pub(crate) labels: Vec<String>,
    pub(crate) addresses: Vec<std::net::IpAddr>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    version: u32,
    generation: Generation,
    revision: Option<Revision>,
    registration: Option<Registration>,
    clusters: Vec<ClusterRow>,
    nodes: Vec<NodeRow>,
    identities: Vec<IdentityRow>,
    addresses: Vec<AddressRow>,
    services: Vec<ServiceRow>,
    policies: Vec<PolicyRow>,
}

/// Reads the file. What cannot be read is moved aside and counts as nothing.
pub(crate) fn load(path: &Path) -> (Mesh, Option<Registration>) {
    let parsed = match files::read_optional(path) {
        Ok(None) => return (Mesh::default(), None),
        Ok(Some(bytes)) => serde_json::from_slice::<File>(&bytes).map_err(|error| error.to_string()),
        Err(error) => Err(error.to_string()),
    };
    match parsed {
        Ok(file) if file.version == VERSION => (mesh_of(&file), file.registration),
        Ok(File { version, .. }) => set_aside(path, &format!("written by another version ({version})")),
        Err(why) => set_aside(path, &why),
    }
}

fn set_aside(path: &Path, why: &str) -> (Mesh, Option<Registration>) {
    let aside = path.with_extension("json.damaged");
    let moved = std::fs::rename(path, &aside).is_ok();
    tracing::warn!(path = %path.display(), why, moved, "the last synced state is not usable; beginning without it");
    (Mesh::default(), None)
}

fn mesh_of(file: &File) -> Mesh {
    fn by_key<K: Ord, V: Clone>(rows: &[V], key: impl Fn(&V) -> K) -> Arc<BTreeMap<K, V>> {
        Arc::new(rows.iter().map(|row| (key(row), row.clone())).collect())
    }
    Mesh {
        clusters: by_key(&file.clusters, |row| row.name.clone()),
        nodes: by_key(&file.nodes, NodeRow::key),
        identities: by_key(&file.identities, |row| row.id),
        addresses: by_key(&file.addresses, |row| -> Prefix { row.prefix }),
        services: by_key(&file.services, ServiceRow::key),
        policies: by_key(&file.policies, PolicyRow::key),
        generation: file.generation,
        revision: file.revision,
        initialised: false,
    }
}

/// Replaces the file.
pub(crate) fn save(path: &Path, mesh: &Mesh, registration: Option<&Registration>) -> std::io::Result<()> {
    let file = File {
        version: VERSION,
        generation: mesh.generation,
        revision: mesh.revision,
        registration: registration.cloned(),
        clusters: mesh.clusters.values().cloned().collect(),
        nodes: mesh.nodes.values().cloned().collect(),
        identities: mesh.identities.values().cloned().collect(),
        addresses: mesh.addresses.values().cloned().collect(),
        services: mesh.services.values().cloned().collect(),
        policies: mesh.policies.values().cloned().collect(),
    };
    files::write_private(path, &serde_json::to_vec(&file)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::fixtures;

    fn mesh() -> Mesh {
        let nodes = fixtures::nodes().into_iter().map(|node| (node.key(), node)).collect();
        let address = fixtures::address("10.65.1.5", 131_330, "198.51.100.1", "us");
        Mesh {
            clusters: Arc::new(fixtures::clusters()),
            nodes: Arc::new(nodes),
            addresses: Arc::new([(address.prefix, address)].into()),
            generation: Generation::new(7),
            revision: Revision::new(42_i64).ok(),
            initialised: true,
            ..Mesh::default()
        }
    }

    #[test]
    fn state_survives_and_counts_as_stale() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("agent-state.json");
        let mesh = mesh();
        let registration =
            Registration { node: fixtures::nodes().remove(1), cluster: mesh.clusters["eu"].clone(), machine: None };
        save(&path, &mesh, Some(&registration)).unwrap();
        let (read, again) = load(&path);
        assert_eq!(again, Some(registration));
        assert_eq!((read.nodes, read.addresses, read.revision), (mesh.nodes, mesh.addresses, mesh.revision));
        assert!(!read.initialised);
    }

    #[test]
    fn a_damaged_file_is_set_aside() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("agent-state.json");
        for content in ["{", "[]", r#"{"version":99}"#] {
            std::fs::write(&path, content).unwrap();
            let (read, registration) = load(&path);
            assert!(read.nodes.is_empty() && registration.is_none(), "{content}");
            assert!(!path.exists() && dir.path().join("agent-state.json.damaged").exists(), "{content}");
        }
    }
}
