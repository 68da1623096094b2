//! Removes a node or machine: its certificate first, then everything that it published.

use std::sync::PoisonError;
use std::time::{Duration, SystemTime};

use fabric_core::admission::NodeRef;
use fabric_core::names::NodeName;
use fabric_core::wire::{Form, Key, RowKey};

use super::endpoint;
use crate::api::{Api, unix_seconds};
use crate::commit::Plan;
use crate::failure::Failure;
use crate::records::{self, EndpointRecord, NodeRecord, RevocationRecord, key};
use crate::store::{KeyRange, Transaction};

/// Longer than any certificate of a member lives.
const REMEMBERED: Duration = Duration::from_hours(48);
/// Endpoints per transaction: each takes a few writes of etcd's 128.
const CHUNK: usize = 20;

/// Refuses the member's certificates from now on and withdraws all that it published.
///
/// # Errors
/// When there is no such member, or the store does not take it.
pub async fn revoke(api: &Api, name: &NodeName) -> Result<(), Failure> {
    let node_key = key::node(name);
    let wire_key = Key::row(Form::State, &api.cluster.name, RowKey::Node(name.clone())).to_string();
    let until = unix_seconds(SystemTime::now() + REMEMBERED);
    let mark = records::encode(&RevocationRecord { name: name.clone(), until })?;
    // The record goes in the same step as the certificate: whoever writes for this member depends on the record.
    let ranges = api
        .commit(|view| {
            let Some(kv) = view.get(node_key.as_bytes()) else {
                return Err(Failure::not_found(format_args!("there is no node {name}")));
            };
            let transaction = Transaction::new().unchanged(node_key.clone(), kv.mod_revision);
            let mut transaction = transaction.put(key::revoked_name(name), mark.clone());
            let mut ranges = Vec::new();
            if let Ok(stored) = records::decode::<NodeRecord>(&kv) {
                for pin in std::iter::once(&stored.value.key).chain(&stored.value.previous_key) {
                    transaction = transaction.put(format!("{}{pin}", key::REVOKED), mark.clone());
                }
                ranges = stored.value.ranges;
            }
            Ok(Plan { transaction: transaction.delete(node_key.clone()).delete(wire_key.clone()), value: ranges })
        })
        .await?;
    withdraw(api, name).await?;
    let node = NodeRef { cluster: api.cluster.name.clone(), name: name.clone() };
    api.claims.lock().unwrap_or_else(PoisonError::into_inner).release(&node);
    api.nodes.forget(name);
    // Only now may its ranges go to somebody else.
    let freed =
        ranges.value.iter().fold(Transaction::new().absent(node_key), |freed, range| freed.delete(key::claim(range)));
    api.store.transact(freed).await?;
    Ok(())
}

/// Withdraws all endpoints of a node that is no member any more.
///
/// # Errors
/// The store's.
pub async fn withdraw(api: &Api, name: &NodeName) -> Result<(), Failure> {
    let kvs = api.view.list(&KeyRange::prefix(key::endpoints_of(name))).kvs;
    for chunk in kvs.chunks(CHUNK) {
        let transaction = chunk.iter().fold(Transaction::new(), |transaction, kv| {
            let record = records::decode::<EndpointRecord>(kv).ok();
            endpoint::without(api, &String::from_utf8_lossy(&kv.key), record, transaction)
        });
        let outcome = api.store.transact(transaction).await?;
        if let Some(revision) = outcome.done() {
            let _ = tokio::time::timeout(Duration::from_secs(5), api.view.reached(revision)).await;
        }
    }
    Ok(())
}
