//! Runs a watch session over its stream.

use std::sync::Arc;
use std::time::Duration;

use clustermesh_api_proto::etcdserverpb::{WatchRequest, WatchResponse};
use futures::FutureExt as _;
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;
use tonic::{Status, Streaming};

use super::Session;
use crate::mesh_endpoint::access::Access;
use crate::mesh_endpoint::errors::stopped;
use crate::store::View;

/// What one stream needs.
#[derive(Debug)]
pub(in crate::mesh_endpoint) struct Stream {
    pub(in crate::mesh_endpoint) access: Arc<Access>,
    pub(in crate::mesh_endpoint) view: View,
    pub(in crate::mesh_endpoint) requests: Streaming<WatchRequest>,
    /// Small: a client that does not read makes us wait, not remember.
    pub(in crate::mesh_endpoint) answers: mpsc::Sender<Result<WatchResponse, Status>>,
    pub(in crate::mesh_endpoint) most_watches: usize,
    pub(in crate::mesh_endpoint) notify: Duration,
    pub(in crate::mesh_endpoint) cancel: CancellationToken,
}

impl Stream {
    /// Serves until the client goes, its right to read goes, or the server ends.
    pub(in crate::mesh_endpoint) async fn run(self) {
        let Self { access, answers, cancel, .. } = &self;
        let (access, answers, cancel) = (Arc::clone(access), answers.clone(), cancel.clone());
        let end = tokio::select! {
            end = self.serve() => end,
            status = revoked(&access) => Err(status),
            () = cancel.cancelled() => Err(stopped()),
        };
        if let Err(status) = end {
            // A client that does not read is cut without a word.
            let _ = answers.try_send(Err(status));
        }
    }

    async fn serve(self) -> Result<(), Status> {
        let Self { access, view, mut requests, answers, most_watches, notify, cancel: _ } = self;
        let scope = access.scope()?;
        let mut session = view.read(|keyspace| Session::new(scope, keyspace, most_watches));
        let mut changes = view.status_changes();
        let mut round = tokio::time::interval_at(Instant::now() + notify, notify);
        round.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            changes.mark_unchanged();
            while let Some(answer) = view.read(|keyspace| session.poll_response(keyspace))? {
                if answers.send(Ok(answer)).await.is_err() {
                    return Ok(());
                }
                // Requests are heard between answers; `message` keeps what it read when it is not waited for.
                if let Some(request) = requests.message().now_or_never() {
                    let Some(request) = request? else { return Ok(()) };
                    view.read(|keyspace| session.handle_request(request, keyspace))?;
                }
            }
            tokio::select! {
                request = requests.message() => {
                    let Some(request) = request? else { return Ok(()) };
                    view.read(|keyspace| session.handle_request(request, keyspace))?;
                }
                _ = changes.changed() => {}
                _ = round.tick() => view.read(|keyspace| session.handle_notify_round(keyspace)),
                () = answers.closed() => return Ok(()),
            }
        }
    }
}

/// Ends when the client may not read any more.
async fn revoked(access: &Access) -> Status {
    let mut changes = access.changes();
    loop {
        if let Err(status) = access.scope() {
            return status;
        }
        if changes.changed().await.is_err() {
            return stopped();
        }
    }
}
