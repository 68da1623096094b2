//! What a cluster says it is and can (`wire.md` 2.1).

use serde::{Deserialize, Serialize};

use super::{DecodeError, from_json, null_is_default, to_json};
use crate::ids::ClusterId;

/// Longest value read, bytes.
pub const MAX_BYTES: usize = 16 * 1024;
/// Clusters of a mesh that is not set otherwise.
pub const DEFAULT_MAX_CLUSTERS: u32 = 255;

/// A cluster's configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClusterConfig {
    /// Its number; what the remote says, not yet compared with what was agreed.
    pub id: ClusterId,
    /// What it can.
    pub capabilities: Capabilities,
}

/// What a cluster's store offers. Absent fields are not written.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Capabilities {
    /// A prefix is complete once its canary exists.
    #[serde(deserialize_with = "null_is_default", skip_serializing_if = "std::ops::Not::not")]
    pub synced_canaries: bool,
    /// Rows are in cache form.
    #[serde(deserialize_with = "null_is_default", skip_serializing_if = "std::ops::Not::not")]
    pub cached: bool,
    /// 255 or 511; 0 = not said, which means 255.
    #[serde(deserialize_with = "null_is_default", skip_serializing_if = "is_zero")]
    pub max_connected_clusters: u32,
    /// Absent: exports are not supported. False: supported, off.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service_exports_enabled: Option<bool>,
    /// 1.20: which of services and endpoint slices it publishes; empty = services.
    #[serde(deserialize_with = "null_is_default", skip_serializing_if = "String::is_empty")]
    pub endpoint_slices_export_mode: String,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's skip_serializing_if passes a reference")]
const fn is_zero(number: &u32) -> bool {
    *number == 0
}

#[derive(Serialize, Deserialize)]
struct Raw {
    #[serde(default)]
    id: u32,
    #[serde(default, deserialize_with = "null_is_default")]
    capabilities: Capabilities,
}

impl ClusterConfig {
    /// What our own cluster publishes in state form.
    pub fn own(id: ClusterId) -> Self {
        let capabilities = Capabilities {
            synced_canaries: true,
            max_connected_clusters: DEFAULT_MAX_CLUSTERS,
            ..Capabilities::default()
        };
        Self { id, capabilities }
    }

    /// What a mirror writes beside its copy of this cluster.
    #[must_use]
    pub fn cached(&self) -> Self {
        let capabilities = Capabilities { synced_canaries: true, cached: true, ..self.capabilities.clone() };
        Self { id: self.id, capabilities }
    }

    /// Which form its rows have.
    pub const fn form(&self) -> super::Form {
        if self.capabilities.cached { super::Form::Cache } else { super::Form::State }
    }

    /// Whether it publishes services under `services/v1`.
    pub fn publishes_services(&self) -> bool {
        self.capabilities.endpoint_slices_export_mode != "endpointslices-only"
    }

    /// Whether its mesh has room for 255 clusters, as ours.
    pub const fn fits_mesh(&self) -> bool {
        matches!(self.capabilities.max_connected_clusters, 0 | DEFAULT_MAX_CLUSTERS)
    }

    /// Writes the JSON.
    pub fn encode(&self) -> Vec<u8> {
        to_json(&Raw { id: u32::from(self.id.value()), capabilities: self.capabilities.clone() })
    }

    /// Reads the JSON.
    ///
    /// # Errors
    /// When it is too long, no JSON, or the id is not 1 to 255.
    pub fn decode(value: &[u8]) -> Result<Self, DecodeError> {
        let raw: Raw = from_json(value, MAX_BYTES)?;
        let id = ClusterId::new(raw.id).map_err(|error| DecodeError::field("id", error))?;
        Ok(Self { id, capabilities: raw.capabilities })
    }
}
