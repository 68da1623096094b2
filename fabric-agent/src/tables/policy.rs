//! Policy documents. Written by the API's stream.

use clustermesh_api_proto::fabric::v1 as proto;
use serde::{Deserialize, Serialize};

/// Names a policy: kind, namespace, name.
pub(crate) type PolicyKey = (String, String, String);

/// A policy document as it was applied.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct PolicyRow {
    pub(crate) kind: String,
    pub(crate) kubernetes_namespace: String,
    pub(crate) name: String,
    /// JSON.
    pub(crate) document: String,
}

impl PolicyRow {
    pub(crate) fn of(policy: &proto::Policy) -> Self {
        Self {
            kind: policy.kind.clone(),
            kubernetes_namespace: policy.kubernetes_namespace.clone(),
            name: policy.name.clone(),
            document: policy.document.clone(),
        }
    }

    pub(crate) fn key(&self) -> PolicyKey {
        (self.kind.clone(), self.kubernetes_namespace.clone(), self.name.clone())
    }
}
