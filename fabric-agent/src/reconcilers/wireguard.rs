//! WireGuard peers, over whichever engine's control interface.
//!
//! The engine is a process of its own: it may be away, come back with the peers that it remembers, or with none. This
//! side compares what it has with what it should have every few seconds, and soon after it was away. Peers and prefixes
//! are added before any is taken; nothing is taken before the first full sync.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context as _;
use fabric_core::backoff::Backoff;
use fabric_core::cluster::Encryption;
use fabric_wireguard::{Controller, DeviceError, DeviceSettings, DeviceStatus, PrivateKey};
use tokio_util::sync::CancellationToken;

use crate::health::Health;
use crate::plan::wireguard::{keep_present, peers};
use crate::tables::{Reader, Snapshot};

/// How often the engine is looked at when nothing changes: also how old the peers' figures may be.
const LOOK: Duration = Duration::from_secs(2);
const RETRY_FIRST: Duration = Duration::from_millis(100);
const RETRY_LAST: Duration = Duration::from_secs(1);

/// The device's last known state, for reports.
#[derive(Debug, Clone, Default)]
pub(crate) struct LastStatus(Arc<Mutex<Option<DeviceStatus>>>);

impl LastStatus {
    pub(crate) fn get(&self) -> Option<DeviceStatus> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set(&self, status: Option<DeviceStatus>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = status;
    }
}

/// What the reconciler needs besides the tables.
#[derive(Debug)]
pub(crate) struct Params {
    pub(crate) controller: Controller,
    pub(crate) key: PrivateKey,
    pub(crate) port: u16,
    pub(crate) status: LastStatus,
    pub(crate) health: Health,
}

/// Runs until cancelled.
pub(crate) async fn run(mut params: Params, mut tables: Reader, cancel: CancellationToken) -> anyhow::Result<()> {
    let mut backoff = Backoff::new(RETRY_FIRST, RETRY_LAST);
    loop {
        let mut wait = LOOK;
        if let Some(snapshot) = tables.snapshot() {
            let work = move || {
                let outcome = pass(&mut params, &snapshot);
                (params, outcome)
            };
            let (back, outcome) = tokio::task::spawn_blocking(work).await.context("a pass over peers panicked")?;
            params = back;
            match outcome {
                Ok(()) => {
                    backoff.reset();
                    params.health.clear("wireguard");
                }
                Err(error) => {
                    wait = backoff.next(rand::random());
                    params.status.set(None);
                    params.health.set("wireguard", &error);
                }
            }
        }
        tokio::select! {
            changed = tables.changed() => if changed.is_err() { return Ok(()) },
            () = tokio::time::sleep(wait) => {}
            () = cancel.cancelled() => return Ok(()),
        }
    }
}

fn pass(params: &mut Params, snapshot: &Snapshot) -> Result<(), DeviceError> {
    // A mesh in clear runs no engine; its absence is no fault then.
    let encrypted = |cluster| snapshot.local.encryption_with(cluster) == Encryption::Wireguard;
    if !snapshot.mesh.clusters.values().any(encrypted) && snapshot.local.encryption == Encryption::None {
        return Ok(());
    }
    let settings =
        DeviceSettings { private_key: Some(params.key.clone()), listen_port: Some(params.port), fwmark: None };
    params.controller.configure(&settings)?;
    let (mesh, local) = (&snapshot.mesh, &*snapshot.local);
    let mut wanted = peers(mesh.nodes.values(), mesh.addresses.values(), &mesh.clusters, local, params.port);
    if !mesh.initialised {
        keep_present(&mut wanted, &params.controller.status()?);
    }
    let applied = params.controller.apply(&wanted)?;
    for conflict in &applied.conflicts {
        tracing::warn!(prefix = %conflict.prefix, owner = %conflict.owner, refused = %conflict.refused,
            "two nodes claim one prefix; the earlier claim has it");
    }
    if applied.added + applied.removed > 0 {
        tracing::info!(added = applied.added, removed = applied.removed, "peers changed");
    }
    params.status.set(Some(params.controller.status()?));
    Ok(())
}
