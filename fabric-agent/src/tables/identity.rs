//! Identities and their labels. Written by the API's stream.

use clustermesh_api_proto::fabric::v1 as proto;
use fabric_core::ids::Identity;
use fabric_core::labels::LabelSet;
use serde::{Deserialize, Serialize};

use super::row::{InvalidRow, Reader};

/// An identity.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct IdentityRow {
    pub(crate) id: Identity,
    pub(crate) labels: LabelSet,
}

impl IdentityRow {
    pub(crate) fn parse(identity: &proto::Identity) -> Result<Self, InvalidRow> {
        let reader = Reader::new(format_args!("identity {}", identity.id));
        Ok(Self {
            id: reader.check("id", Identity::new(identity.id))?,
            labels: reader.check("labels", LabelSet::parse(identity.labels.iter().map(String::as_str)))?,
        })
    }
}
