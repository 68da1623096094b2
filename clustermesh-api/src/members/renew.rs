//! A new certificate for the same name, before the old one ends.

use std::time::SystemTime;

use fabric_core::names::NodeName;
use fabric_core::token::MemberKind;

use super::Member;
use crate::api::Api;
use crate::commit::Plan;
use crate::failure::Failure;
use crate::pki::{KeyMaterial, Leaf, LeafRequest, Pin, Role, Validity};
use crate::records::{self, NodeRecord, key};
use crate::store::Transaction;

/// Longest certificate request, bytes.
pub const CSR_BYTES: usize = 16 * 1024;

/// Signs a request for a member's name.
///
/// # Errors
/// When the request does not prove that its sender has the key.
pub fn sign(api: &Api, kind: MemberKind, name: &NodeName, csr: &[u8]) -> Result<(Leaf, Pin), Failure> {
    if csr.len() > CSR_BYTES {
        return Err(Failure::invalid("certificate request is too long"));
    }
    let role = match kind {
        MemberKind::Node => Role::Node(name.clone()),
        MemberKind::Machine => Role::Machine(name.clone()),
    };
    let request = LeafRequest { role, addresses: Vec::new(), validity: Validity::day(SystemTime::now()) };
    let leaf = api.authority.issue(&request, &KeyMaterial::Request(csr)).map_err(Failure::invalid)?;
    let certificate = leaf.chain.first().ok_or_else(|| Failure::internal("issued no certificate"))?;
    let pin = Pin::of_certificate(certificate).map_err(Failure::internal)?;
    Ok((leaf, pin))
}

/// Renews the caller's certificate; its key may change. The old one stays good until it ends.
///
/// # Errors
/// When the request is no good, or the store does not take it.
pub async fn renew(api: &Api, member: &Member, csr: &[u8]) -> Result<Leaf, Failure> {
    let (leaf, pin) = sign(api, member.kind, &member.name, csr)?;
    let (new, current) = (pin.to_string(), member.key.to_string());
    api.commit(|view| {
        let node_key = key::node(&member.name);
        let stored = member.record(view)?;
        let record = match &stored {
            Some(stored) if stored.value.key == new => return Ok(Plan::nothing(())),
            Some(stored) => {
                let previous_key = Some(current.clone());
                NodeRecord { key: new.clone(), previous_key, ..stored.value.clone() }
            }
            None => NodeRecord { previous_key: Some(current.clone()), ..NodeRecord::new(member.kind, new.clone()) },
        };
        let transaction = match &stored {
            Some(stored) => Transaction::new().unchanged(node_key.clone(), stored.mod_revision),
            None => Transaction::new().absent(node_key.clone()),
        };
        Ok(Plan { transaction: transaction.put(node_key, records::encode(&record)?), value: () })
    })
    .await?;
    Ok(leaf)
}
