//! Writes the last synced state to disk, some time after it changed.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::health::Health;
use crate::state_file::{self, Registration};
use crate::tables::Tables;

/// Changes within this time are written together.
const DEBOUNCE: Duration = Duration::from_secs(2);

/// Runs until cancelled, and writes once more then.
pub(crate) async fn run(
    path: PathBuf,
    tables: Arc<Tables>,
    mut registration: watch::Receiver<Option<Registration>>,
    health: Health,
    cancel: CancellationToken,
) -> anyhow::Result<()> {
    let mut mesh = tables.mesh.subscribe();
    loop {
        let stop = tokio::select! {
            changed = mesh.changed() => changed.is_err(),
            changed = registration.changed() => changed.is_err(),
            () = cancel.cancelled() => true,
        };
        let stop = stop || cancel.run_until_cancelled(tokio::time::sleep(DEBOUNCE)).await.is_none();
        let (mesh, registration) = (mesh.borrow_and_update().clone(), registration.borrow_and_update().clone());
        let path = path.clone();
        let written = tokio::task::spawn_blocking(move || state_file::save(&path, &mesh, registration.as_ref())).await;
        match written? {
            Ok(()) => health.clear("state"),
            Err(error) => health.set("state", &error),
        }
        if stop {
            return Ok(());
        }
    }
}
