//! Publishes our shared services with their own backends for other clusters, and withdraws them.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use fabric_core::wire::service::{L4Addr, Ports, Protocol};
use fabric_core::wire::{Form, Key, Kind, RowKey, ServiceEntry};
use tokio_util::sync::CancellationToken;

use crate::api::SharedApi;
use crate::failure::Failure;
use crate::service_index::{OwnService, ServiceIndex, ServiceName};
use crate::store::{EventKind, KeyRange, Transaction, Update};
use fabric_core::backoff::Backoff;

/// Writes per transaction.
const CHUNK: usize = 100;

/// Runs until stopped.
///
/// # Errors
/// None.
pub async fn keep(api: SharedApi, stop: CancellationToken) -> anyhow::Result<()> {
    tokio::select! {
        () = stop.cancelled() => return Ok(()),
        () = api.view.loaded() => {}
    }
    loop {
        let snapshot = api.view.list(&KeyRange::all());
        let mut changes = api.view.subscribe(snapshot.position);
        let mut index = ServiceIndex::default();
        for kv in &snapshot.kvs {
            if let Ok(key) = std::str::from_utf8(&kv.key) {
                index.update(key, Some(&kv.value));
            }
        }
        drop(snapshot);
        let published = api.view.list(&KeyRange::prefix(Kind::Services.rows_prefix(Form::State, &api.cluster.name)));
        let mut pending: BTreeSet<ServiceName> = index.names().cloned().collect();
        pending.extend(published.kvs.iter().filter_map(|kv| service_of(&api, &kv.key)));
        let mut backoff = Backoff::new(Duration::from_millis(50), Duration::from_secs(5));
        loop {
            let pause = match write(&api, &index, &pending).await {
                Ok(()) => {
                    pending.clear();
                    backoff.reset();
                    Duration::from_hours(1)
                }
                Err(error) => {
                    tracing::warn!(%error, services = pending.len(), "shared services are not written");
                    backoff.next(rand::random())
                }
            };
            let update = tokio::select! {
                () = stop.cancelled() => return Ok(()),
                () = tokio::time::sleep(pause) => continue,
                update = changes.next() => update,
            };
            let Update::Changes(batches) = update else { break };
            for event in batches.iter().flat_map(|batch| &batch.events) {
                let Ok(key) = std::str::from_utf8(&event.kv.key) else { continue };
                let value = (event.kind == EventKind::Put).then_some(&event.kv.value[..]);
                pending.extend(index.update(key, value));
                pending.extend(service_of(&api, &event.kv.key));
            }
        }
    }
}

/// The service that a published key is of: looked at again when somebody else changes it.
fn service_of(api: &SharedApi, key: &[u8]) -> Option<ServiceName> {
    match Key::parse(key, &api.cluster.name) {
        Ok(Key::Row { form: Form::State, cluster, row: RowKey::Service { namespace, name } })
            if cluster == api.cluster.name =>
        {
            Some((namespace, name))
        }
        _ => None,
    }
}

async fn write(api: &SharedApi, index: &ServiceIndex, names: &BTreeSet<ServiceName>) -> Result<(), Failure> {
    let mut writes: Vec<(String, Option<Vec<u8>>)> = Vec::new();
    for name in names {
        let row = RowKey::Service { namespace: name.0.clone(), name: name.1.clone() };
        let key = Key::row(Form::State, &api.cluster.name, row).to_string();
        let shared = index.get(name).filter(|service| service.spec.sharing.shared);
        let wanted = shared.map(|service| entry(api, name, &service).encode());
        let present = api.view.get(key.as_bytes()).map(|kv| kv.value);
        if present.as_deref() != wanted.as_deref() {
            writes.push((key, wanted));
        }
    }
    for chunk in writes.chunks(CHUNK) {
        let transaction = chunk.iter().fold(Transaction::new(), |transaction, (key, value)| match value {
            Some(value) => transaction.put(key.clone(), value.clone()),
            None => transaction.delete(key.clone()),
        });
        api.store.transact(transaction).await?;
    }
    Ok(())
}

fn entry(api: &SharedApi, name: &ServiceName, service: &OwnService<'_>) -> ServiceEntry {
    let port = |protocol: fabric_core::service::Protocol, port: u16| L4Addr {
        protocol: Protocol::from(protocol.as_str().to_owned()),
        port,
    };
    let front: Ports = service.spec.ports.iter().map(|one| (one.name.clone(), port(one.protocol, one.port))).collect();
    let backends: BTreeMap<_, Ports> = service
        .backends
        .iter()
        .map(|(address, ports)| {
            let ports = ports.iter().map(|(name, (protocol, number))| (name.clone(), port(*protocol, *number)));
            (*address, ports.collect())
        })
        .collect();
    ServiceEntry {
        frontends: service.frontends.iter().map(|address| (*address, front.clone())).collect(),
        backends,
        labels: service.object.metadata.labels.clone(),
        selector: service.spec.selector.clone(),
        ..ServiceEntry::new(api.cluster.name.clone(), api.cluster.id, name.0.clone(), name.1.clone())
    }
}
