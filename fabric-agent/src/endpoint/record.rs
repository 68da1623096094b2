//! What is remembered of the node's workloads over a restart, in `{state}/endpoints.json`.
//!
//! It is written before a workload is told that it is ready, and before its address may rest.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use fabric_core::ids::Identity;
use fabric_core::names::{Namespace, ObjectName};
use serde::{Deserialize, Serialize};

use crate::ipam::Resting;
use crate::sys::files;
use crate::sys::netlink::MacAddress;
use crate::sys::netns::NetnsId;

/// Layout of the file.
const VERSION: u32 = 1;

/// A workload of this node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct EndpointRecord {
    pub(crate) id: String,
    pub(crate) kubernetes_namespace: Namespace,
    pub(crate) name: ObjectName,
    /// Without source: `app=web`.
    pub(crate) labels: Vec<String>,
    pub(crate) netns: PathBuf,
    pub(crate) netns_id: NetnsId,
    pub(crate) interface: String,
    pub(crate) host_interface: String,
    pub(crate) host_mac: MacAddress,
    pub(crate) mac: MacAddress,
    pub(crate) addresses: Vec<IpAddr>,
    /// Unique on the node, for flows.
    pub(crate) number: u16,
    /// Last known; `None` before the first.
    pub(crate) identity: Option<Identity>,
}

/// The file's content.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Records {
    version: u32,
    pub(crate) endpoints: BTreeMap<String, EndpointRecord>,
    /// Ids that are gone here and that the API may still know.
    pub(crate) withdrawn: BTreeSet<String>,
    pub(crate) resting: Resting,
}

/// Why the records could not be read or written.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RecordError {
    #[error("{path} cannot be read")]
    Read {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("{path} is damaged: move it away and add the workloads again")]
    Damaged {
        path: PathBuf,
        #[source]
        source: serde_json::Error,
    },
    #[error("{path} was written by another version ({version})")]
    Version { path: PathBuf, version: u32 },
    #[error("{path} cannot be written")]
    Write {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
}

impl Records {
    /// Reads the file; nothing where there is none.
    pub(crate) fn load(path: &Path) -> Result<Self, RecordError> {
        let read = files::read_optional(path).map_err(|source| RecordError::Read { path: path.to_owned(), source })?;
        let Some(bytes) = read else { return Ok(Self { version: VERSION, ..Self::default() }) };
        let records: Self =
            serde_json::from_slice(&bytes).map_err(|source| RecordError::Damaged { path: path.to_owned(), source })?;
        if records.version != VERSION {
            return Err(RecordError::Version { path: path.to_owned(), version: records.version });
        }
        Ok(records)
    }

    /// Replaces the file.
    pub(crate) fn save(&self, path: &Path) -> Result<(), RecordError> {
        let write = |source| RecordError::Write { path: path.to_owned(), source };
        let bytes = serde_json::to_vec_pretty(self).map_err(|error| write(error.into()))?;
        files::write_private(path, &bytes).map_err(write)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_survive_and_damage_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("endpoints.json");
        let mut records = Records::load(&path).unwrap();
        records.withdrawn.insert("shop/web".to_owned());
        records.save(&path).unwrap();
        assert_eq!(Records::load(&path).unwrap(), records);
        std::fs::write(&path, "{").unwrap();
        assert!(matches!(Records::load(&path), Err(RecordError::Damaged { .. })));
        std::fs::write(&path, r#"{"version":9,"endpoints":{},"withdrawn":[],"resting":{"until":{}}}"#).unwrap();
        assert!(matches!(Records::load(&path), Err(RecordError::Version { version: 9, .. })));
    }
}
