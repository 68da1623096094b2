//! Keeps the table of rows in step with the store.

use tokio_util::sync::CancellationToken;

use super::rows::RowBuilder;
use super::table::SyncTable;
use crate::store::{KeyRange, Update, View};

/// Follows the view until stopped.
pub async fn feed(view: View, mut builder: RowBuilder, table: SyncTable, stop: CancellationToken) {
    tokio::select! {
        () = stop.cancelled() => return,
        () = view.loaded() => {}
    }
    loop {
        let snapshot = view.list(&KeyRange::all());
        let rows = builder.all(&snapshot);
        tracing::debug!(rows = rows.len(), revision = snapshot.position.revision, "rows listed");
        table.replace(snapshot.position, rows);
        let mut changes = view.subscribe(snapshot.position);
        loop {
            let update = tokio::select! {
                () = stop.cancelled() => return,
                update = changes.next() => update,
            };
            let Update::Changes(batches) = update else { break };
            let Some(revision) = batches.last().map(|batch| batch.revision) else { continue };
            let rows = builder.changes(batches.iter().flat_map(|batch| &batch.events));
            table.apply(revision, rows);
        }
    }
}
