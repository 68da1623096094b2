//! What nodes and machines of this cluster publish: themselves, their endpoints, the identities of those.
//!
//! Every write is a compare-and-swap that depends on the member's record, so that nothing of a revoked member comes back.

pub mod address;
pub mod endpoint;
pub mod identity;
pub mod node;
pub mod renew;
pub mod revoke;

use fabric_core::error_code as codes;
use fabric_core::names::NodeName;
use fabric_core::token::MemberKind;

use tonic::Code;

use crate::failure::Failure;
use crate::pki::Pin;
use crate::records::{self, NodeRecord, Stored, key};
use crate::store::View;

/// A caller that its certificate names as a node or machine of this cluster.
#[derive(Debug, Clone)]
pub struct Member {
    /// Its name.
    pub name: NodeName,
    /// What its certificate says it is.
    pub kind: MemberKind,
    /// Hash of its certificate's public key.
    pub key: Pin,
}

impl Member {
    /// Its record, if it has one and it is this certificate's.
    ///
    /// # Errors
    /// When the name is registered with another key or as another kind.
    pub fn record(&self, view: &View) -> Result<Option<Stored<NodeRecord>>, Failure> {
        let Some(stored) = records::read::<NodeRecord>(view, &key::node(&self.name))? else {
            return self.not_gone(view).map(|()| None);
        };
        let record = &stored.value;
        let mine = self.key.to_string();
        if record.key != mine && record.previous_key.as_ref() != Some(&mine) {
            let name = &self.name;
            let message =
                format_args!("node {name} is registered with another key; revoke it first: fabric node revoke {name}");
            return Err(Failure::refused(codes::NAME_TAKEN, message));
        }
        if record.kind != self.kind {
            let message = format_args!("{} is registered as a {:?}, not as a {:?}", self.name, record.kind, self.kind);
            return Err(Failure::refused(codes::NAME_TAKEN, message));
        }
        Ok(Some(stored))
    }

    /// One that was revoked has no record; its older keys, renewed away, are not marked one by one.
    fn not_gone(&self, view: &View) -> Result<(), Failure> {
        if view.get(key::revoked_name(&self.name).as_bytes()).is_none() {
            return Ok(());
        }
        let message = format_args!("node {} was revoked", self.name);
        Err(Failure::new(codes::NODE_REVOKED, Code::PermissionDenied, message))
    }

    /// Its record; it must have registered.
    ///
    /// # Errors
    /// As [`Self::record`], and when it has not registered.
    pub fn registered(&self, view: &View) -> Result<Stored<NodeRecord>, Failure> {
        match self.record(view)? {
            Some(stored) if !stored.value.ranges.is_empty() => Ok(stored),
            _ => Err(Failure::refused(codes::NOT_FOUND, format_args!("node {} has not registered yet", self.name))),
        }
    }
}
