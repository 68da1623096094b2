//! Removes what nobody needs any more: identities without endpoints, old tokens and invites, marks of certificates that
//! have ended, what members that are gone left behind.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, SystemTime};

use fabric_core::names::NodeName;
use fabric_core::wire::{Form, Key, Kind, RowKey};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::api::{SharedApi, unix_seconds};
use crate::failure::Failure;
use crate::members::{identity, revoke};
use crate::records::{self, EndpointRecord, IdentityRecord, InviteRecord, RevocationRecord, Stored, TokenRecord, key};
use crate::store::{KeyRange, Transaction};

/// How often it looks.
const LOOK: Duration = Duration::from_secs(30);
/// An identity without endpoints stays this long: its workload may only be moving.
const IDENTITY_REST: Duration = Duration::from_mins(10);
/// Tokens and invites are shown for this long after they ended.
const SHOWN_S: u64 = 24 * 3600;

/// Runs until stopped.
///
/// # Errors
/// None.
pub async fn keep(api: SharedApi, stop: CancellationToken) -> anyhow::Result<()> {
    tokio::select! {
        () = stop.cancelled() => return Ok(()),
        () = api.view.loaded() => {}
    }
    let mut idle = BTreeMap::new();
    loop {
        if let Err(error) = pass(&api, &mut idle, IDENTITY_REST, SystemTime::now()).await {
            tracing::debug!(%error, "collecting");
        }
        tokio::select! {
            () = stop.cancelled() => return Ok(()),
            () = tokio::time::sleep(LOOK) => {}
        }
    }
}

/// One look at everything. `idle` remembers since when each identity has had no endpoint.
///
/// # Errors
/// The store's.
pub async fn pass(
    api: &SharedApi,
    idle: &mut BTreeMap<String, Instant>,
    rest: Duration,
    now: SystemTime,
) -> Result<(), Failure> {
    identities(api, idle, rest).await?;
    secrets(api, unix_seconds(now)).await?;
    left_behind(api).await
}

async fn identities(api: &SharedApi, idle: &mut BTreeMap<String, Instant>, rest: Duration) -> Result<(), Failure> {
    let used = used(api);
    let records = records::read_all::<IdentityRecord>(&api.view, key::IDENTITY_LABELS);
    let known: BTreeSet<&String> = records.iter().map(|record| &record.key).collect();
    idle.retain(|key, _| known.contains(key));
    for record in &records {
        if used.contains(&record.value.labels) {
            idle.remove(&record.key);
            continue;
        }
        let since = *idle.entry(record.key.clone()).or_insert_with(Instant::now);
        if since.elapsed() >= rest {
            retire(api, record).await?;
        }
    }
    Ok(())
}

fn used(api: &SharedApi) -> BTreeSet<String> {
    let endpoints = records::read_all::<EndpointRecord>(&api.view, key::ENDPOINTS);
    endpoints.into_iter().map(|endpoint| endpoint.value.labels).collect()
}

/// In two steps: the mark makes every publication that is under way decide anew; only if none took the number up by then
/// it goes.
async fn retire(api: &SharedApi, record: &Stored<IdentityRecord>) -> Result<(), Failure> {
    let marked = records::encode(&IdentityRecord { retiring: true, ..record.value.clone() })?;
    let mark = Transaction::new().unchanged(record.key.clone(), record.mod_revision).put(record.key.clone(), marked);
    let Some(revision) = api.store.transact(mark).await?.done() else { return Ok(()) };
    if tokio::time::timeout(Duration::from_secs(5), api.view.reached(revision)).await.is_err()
        || used(api).contains(&record.value.labels)
    {
        return Ok(());
    }
    let transaction = Transaction::new()
        .unchanged(record.key.clone(), revision)
        .delete(identity::wire_key(&api.cluster, record.value.id))
        .delete(record.key.clone());
    if api.store.transact(transaction).await?.done().is_some() {
        tracing::debug!(identity = %record.value.id, "identity without endpoints removed");
    }
    Ok(())
}

async fn secrets(api: &SharedApi, now: u64) -> Result<(), Failure> {
    let tokens = records::read_all::<TokenRecord>(&api.view, key::TOKENS);
    let tokens = tokens.into_iter().map(|token| (token.key, token.mod_revision, token.value.expires_at + SHOWN_S));
    let invites = records::read_all::<InviteRecord>(&api.view, key::INVITES);
    let invites =
        invites.into_iter().map(|invite| (invite.key, invite.mod_revision, invite.value.expires_at + SHOWN_S));
    let marks = records::read_all::<RevocationRecord>(&api.view, key::REVOKED);
    let marks = marks.into_iter().map(|mark| (mark.key, mark.mod_revision, mark.value.until));
    for (key, revision, _) in tokens.chain(invites).chain(marks).filter(|(_, _, until)| *until < now) {
        api.store.transact(Transaction::new().unchanged(key.clone(), revision).delete(key)).await?;
    }
    Ok(())
}

/// Endpoints, entries and claims of nodes that are no members: what an interrupted revocation left.
async fn left_behind(api: &SharedApi) -> Result<(), Failure> {
    let is_member = |name: &NodeName| api.view.get(key::node(name).as_bytes()).is_some();
    let endpoints = api.view.list(&KeyRange::prefix(key::ENDPOINTS)).kvs;
    let owners: BTreeSet<NodeName> = endpoints
        .iter()
        .filter_map(|kv| std::str::from_utf8(&kv.key).ok()?.strip_prefix(key::ENDPOINTS)?.split_once('/'))
        .filter_map(|(owner, _)| NodeName::new(owner).ok())
        .collect();
    for owner in owners.iter().filter(|owner| !is_member(owner)) {
        revoke::withdraw(api, owner).await?;
    }
    for kv in api.view.list(&KeyRange::prefix(key::CLAIMS)).kvs {
        // A service's claim names no node.
        let Ok(owner) = serde_json::from_slice::<NodeName>(&kv.value) else { continue };
        if !is_member(&owner) {
            let transaction = Transaction::new().absent(key::node(&owner)).unchanged(kv.key.clone(), kv.mod_revision);
            api.store.transact(transaction.delete(kv.key)).await?;
        }
    }
    let published = api.view.list(&KeyRange::prefix(Kind::Nodes.rows_prefix(Form::State, &api.cluster.name))).kvs;
    for kv in published {
        let Ok(Key::Row { row: RowKey::Node(name), .. }) = Key::parse(&kv.key, &api.cluster.name) else { continue };
        if !is_member(&name) {
            let transaction = Transaction::new().absent(key::node(&name)).unchanged(kv.key.clone(), kv.mod_revision);
            api.store.transact(transaction.delete(kv.key)).await?;
        }
    }
    Ok(())
}
