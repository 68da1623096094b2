//! Says to other clusters that this one is there, what it is, and that its state is complete.
//!
//! The heartbeat is touched every minute: readers drop a connection without it. Configuration and canaries are put back
//! when somebody removes or changes them.

use std::time::{Duration, SystemTime};

use fabric_core::wire::key::HEARTBEAT;
use fabric_core::wire::{ClusterConfig, Form, Key, Kind, heartbeat};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::api::SharedApi;
use crate::failure::Failure;
use crate::store::Transaction;

/// How often configuration and canaries are looked at.
const LOOK: Duration = Duration::from_secs(5);

/// Runs until stopped.
///
/// # Errors
/// None.
pub async fn keep(api: SharedApi, stop: CancellationToken) -> anyhow::Result<()> {
    tokio::select! {
        () = stop.cancelled() => return Ok(()),
        () = api.view.loaded() => {}
    }
    let mut beaten: Option<Instant> = None;
    loop {
        let beat = beaten.is_none_or(|at| at.elapsed() >= heartbeat::INTERVAL);
        match publish(&api, beat).await {
            Ok(()) if beat => beaten = Some(Instant::now()),
            Ok(()) => {}
            Err(error) => tracing::warn!(%error, "heartbeat and configuration are not written"),
        }
        tokio::select! {
            () = stop.cancelled() => return Ok(()),
            () = tokio::time::sleep(LOOK) => {}
        }
    }
}

async fn publish(api: &SharedApi, beat: bool) -> Result<(), Failure> {
    let now = heartbeat::encode(SystemTime::now());
    let mut transaction = Transaction::new();
    if beat {
        transaction = transaction.put(HEARTBEAT, now.clone());
    }
    let config_key = Key::ClusterConfig(api.cluster.name.clone()).to_string();
    let config = ClusterConfig::own(api.cluster.id).encode();
    if api.view.get(config_key.as_bytes()).is_none_or(|kv| kv.value != config) {
        transaction = transaction.put(config_key, config);
    }
    // Everything that this API publishes stands in its own store: it is complete as soon as the store is read.
    for kind in Kind::ALL {
        let key = Key::synced(Form::State, &api.cluster.name, kind).to_string();
        if api.view.get(key.as_bytes()).is_none() {
            transaction = transaction.put(key, now.clone());
        }
    }
    if transaction.is_empty() {
        return Ok(());
    }
    api.store.transact(transaction).await?;
    Ok(())
}
