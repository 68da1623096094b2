//! Which labels have which number: the same for everybody, and for as long as anybody uses it.

use fabric_core::cluster::ClusterSpec;
use fabric_core::error_code as codes;
use fabric_core::ids::Identity;
use fabric_core::labels::LabelSet;
use fabric_core::wire::{self, Form, Key, Kind};
use tonic::Code;

use crate::commit::Plan;
use crate::failure::Failure;
use crate::records::{self, IdentityRecord, Stored, key};
use crate::store::{KeyRange, Transaction, View};

/// Lowest number that a cluster gives out; those below mean fixed things.
const FIRST: u16 = 256;

/// The key under which everybody reads an identity.
pub fn wire_key(cluster: &ClusterSpec, id: Identity) -> String {
    Key::row(Form::State, &cluster.name, wire::RowKey::Identity(id)).to_string()
}

/// The number of a label set: the one that it has, or the next free one.
///
/// # Errors
/// When every number is taken.
pub fn plan(view: &View, cluster: &ClusterSpec, labels: &LabelSet) -> Result<Plan<Identity>, Failure> {
    let label_key = key::identity_labels(labels);
    // A record that does not parse is as none, but it must be replaced as it is.
    let found = view.get(label_key.as_bytes());
    let known = found.as_ref().and_then(|kv| records::decode::<IdentityRecord>(kv).ok());
    let transaction = match &found {
        Some(kv) => Transaction::new().unchanged(label_key.clone(), kv.mod_revision),
        None => Transaction::new().absent(label_key.clone()),
    };
    if let Some(Stored { value: record, .. }) = &known
        && record.labels == labels.to_wire()
        && record.id.cluster() == Some(cluster.id)
    {
        return keep(view, cluster, transaction, &label_key, record);
    }
    if let Some(id) = published(view, cluster, labels) {
        let record = IdentityRecord { id, labels: labels.to_wire(), retiring: false };
        return Ok(Plan { transaction: transaction.put(label_key, records::encode(&record)?), value: id });
    }
    let (id, transaction) = next(view, cluster, transaction)?;
    let record = IdentityRecord { id, labels: labels.to_wire(), retiring: false };
    let transaction = transaction
        .put(label_key, records::encode(&record)?)
        .put(key::IDENTITY_LAST, records::encode(&id)?)
        .put(wire_key(cluster, id), wire::identity::encode(labels));
    Ok(Plan { transaction, value: id })
}

/// The number is known: it stays, and stands where readers look for it.
fn keep(
    view: &View,
    cluster: &ClusterSpec,
    transaction: Transaction,
    label_key: &str,
    record: &IdentityRecord,
) -> Result<Plan<Identity>, Failure> {
    let wire_key = wire_key(cluster, record.id);
    let published = view.get(wire_key.as_bytes()).is_some_and(|kv| kv.value == record.labels.as_bytes());
    if published && !record.retiring {
        return Ok(Plan::nothing(record.id));
    }
    let record = IdentityRecord { retiring: false, ..record.clone() };
    let transaction =
        transaction.put(label_key.to_owned(), records::encode(&record)?).put(wire_key, record.labels.clone());
    Ok(Plan { transaction, value: record.id })
}

/// The number under which these labels are published although no good record says so: somebody damaged the record.
fn published(view: &View, cluster: &ClusterSpec, labels: &LabelSet) -> Option<Identity> {
    // Only worth a search where there is something to lose.
    view.get(key::identity_labels(labels).as_bytes())?;
    let range = KeyRange::prefix(Kind::Identities.rows_prefix(Form::State, &cluster.name));
    let text = labels.to_wire();
    let snapshot = view.list(&range);
    let kv = snapshot.kvs.iter().find(|kv| kv.value == text.as_bytes())?;
    match Key::parse(&kv.key, &cluster.name) {
        Ok(Key::Row { row: wire::RowKey::Identity(id), .. }) if id.cluster() == Some(cluster.id) => Some(id),
        _ => None,
    }
}

/// The number after the one given last, going round: a number that was given up rests for as long as possible.
fn next(view: &View, cluster: &ClusterSpec, transaction: Transaction) -> Result<(Identity, Transaction), Failure> {
    let last = view.get(key::IDENTITY_LAST.as_bytes());
    let transaction = match &last {
        Some(kv) => transaction.unchanged(key::IDENTITY_LAST, kv.mod_revision),
        None => transaction.absent(key::IDENTITY_LAST),
    };
    let last = last
        .and_then(|kv| serde_json::from_slice::<Identity>(&kv.value).ok())
        .and_then(|id| u16::try_from(id.value() & 0xffff).ok())
        .unwrap_or(FIRST - 1);
    let mut number = last;
    for _ in FIRST..=u16::MAX {
        number = if number < FIRST - 1 || number == u16::MAX { FIRST } else { number + 1 };
        let id = Identity::of_cluster(cluster.id, number);
        let wire_key = wire_key(cluster, id);
        if view.get(wire_key.as_bytes()).is_none() {
            return Ok((id, transaction.absent(wire_key)));
        }
    }
    let message = format_args!("cluster {} has no free identity number", cluster.name);
    Err(Failure::new(codes::NO_ADDRESSES_LEFT, Code::ResourceExhausted, message))
}
