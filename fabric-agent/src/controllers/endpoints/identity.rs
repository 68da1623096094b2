//! Identities: from the API, or, while it is away, from what is known of the same labels.

use std::net::IpAddr;
use std::sync::Arc;

use clustermesh_api_proto::fabric::v1 as proto;
use fabric_core::ids::Identity;
use fabric_core::labels::{LabelSet, user};
use fabric_core::names::{ClusterName, Namespace, ObjectName};

use super::{EndpointController, EndpointError, IDENTITY};
use crate::endpoint::record::EndpointRecord;
use crate::plan::LocalNode;
use crate::tables::identity::IdentityRow;

/// What of an endpoint is published.
#[derive(Debug, Clone, Copy)]
pub(super) struct Publication<'a> {
    pub(super) id: &'a str,
    pub(super) kubernetes_namespace: &'a Namespace,
    pub(super) name: &'a ObjectName,
    pub(super) labels: &'a [String],
    pub(super) addresses: &'a [IpAddr],
}

impl<'a> Publication<'a> {
    pub(super) fn of(record: &'a EndpointRecord) -> Self {
        Self {
            id: &record.id,
            kubernetes_namespace: &record.kubernetes_namespace,
            name: &record.name,
            labels: &record.labels,
            addresses: &record.addresses,
        }
    }

    fn request(&self) -> proto::PutEndpointRequest {
        proto::PutEndpointRequest {
            name: self.id.to_owned(),
            kubernetes_namespace: self.kubernetes_namespace.to_string(),
            labels: self.labels.to_vec(),
            addresses: self.addresses.iter().map(ToString::to_string).collect(),
            workload: self.name.to_string(),
            ..proto::PutEndpointRequest::default()
        }
    }

    /// All labels that the cluster gives it.
    pub(super) fn label_set(&self, cluster: &ClusterName) -> Option<LabelSet> {
        let labels = user::parse_list(self.labels.iter().map(String::as_str)).ok()?;
        LabelSet::of_endpoint(labels, self.kubernetes_namespace, cluster).ok()
    }
}

impl EndpointController {
    /// The identity of an endpoint that is just made: what the API says, or else what is known.
    pub(super) async fn identity_of_new(
        &self,
        record: &EndpointRecord,
        local: &LocalNode,
    ) -> Result<IdentityRow, EndpointError> {
        let publication = Publication::of(record);
        match self.publish(publication).await {
            Ok(identity) => Ok(identity),
            Err(EndpointError::NoIdentity { why }) => {
                let known = self.known_identity(publication, local);
                let known = known.ok_or(EndpointError::NoIdentity { why })?;
                tracing::warn!(id = record.id, identity = %known.id, "the API is away; using the identity of these labels");
                Ok(known)
            }
            Err(error) => Err(error),
        }
    }

    /// Publishes an endpoint; gives its identity.
    pub(super) async fn publish(&self, publication: Publication<'_>) -> Result<IdentityRow, EndpointError> {
        let mut api = self.parts.client.agent_api();
        let answer = tokio::time::timeout(IDENTITY, api.put_endpoint(publication.request())).await;
        let answer = match answer {
            Err(_) => return Err(EndpointError::NoIdentity { why: format!("no answer within {IDENTITY:?}") }),
            Ok(Err(status)) => return Err(self.refusal(&status)),
            Ok(Ok(answer)) => answer.into_inner(),
        };
        let identity = answer.identity.unwrap_or_default();
        IdentityRow::parse(&identity).map_err(|error| EndpointError::Refused { message: error.to_string() })
    }

    /// Unreachable and overloaded are the same to a caller: try again. All else is an answer.
    fn refusal(&self, status: &tonic::Status) -> EndpointError {
        let away = [
            tonic::Code::Unavailable,
            tonic::Code::Unknown,
            tonic::Code::DeadlineExceeded,
            tonic::Code::Cancelled,
            tonic::Code::Aborted,
        ];
        if away.contains(&status.code()) {
            let why = self.parts.client.last_error().unwrap_or_else(|| status.message().to_owned());
            return EndpointError::NoIdentity { why };
        }
        EndpointError::Refused { message: status.message().to_owned() }
    }

    /// The identity that these labels have in this cluster, as far as is known.
    pub(super) fn known_identity(&self, publication: Publication<'_>, local: &LocalNode) -> Option<IdentityRow> {
        let labels = publication.label_set(&local.cluster)?;
        let identities = Arc::clone(&self.parts.tables.mesh.borrow().identities);
        let ours = |row: &&IdentityRow| row.labels == labels && row.id.cluster() == Some(local.cluster_id);
        identities.values().find(ours).cloned()
    }

    /// Writes down which identity an endpoint has.
    pub(super) fn remember_identity(&self, id: &str, identity: Identity) -> Result<(), EndpointError> {
        let mut ledger = self.ledger();
        let Some(record) = ledger.records.endpoints.get_mut(id) else { return Ok(()) };
        if record.identity == Some(identity) {
            return Ok(());
        }
        record.identity = Some(identity);
        Ok(ledger.save()?)
    }
}
