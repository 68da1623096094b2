//! The calls that are answered: Range, Watch, Status. Everything else is refused before it gets here.

use std::sync::Arc;

use clustermesh_api_proto::etcdserverpb as pb;
use clustermesh_api_proto::etcdserverpb::kv_server::Kv;
use clustermesh_api_proto::etcdserverpb::maintenance_server::Maintenance;
use clustermesh_api_proto::etcdserverpb::watch_server::Watch;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::{Request, Response, Status, Streaming};

use super::MeshEndpointLimits;
use super::access::Access;
use super::errors::{NO_LEADER, no_leader, permission_denied};
use super::range::range;
use super::watch::io::Stream;
use crate::store::View;

/// Answers that may wait for a client on one stream.
const ANSWERS_WAITING: usize = 4;

/// One connection's half of the services.
#[derive(Debug, Clone)]
pub(super) struct Services {
    pub(super) access: Arc<Access>,
    pub(super) view: View,
    pub(super) limits: MeshEndpointLimits,
    pub(super) cancel: CancellationToken,
    /// Belongs to the connection: its streams end with it.
    pub(super) streams: TaskTracker,
}

impl Services {
    fn ready(&self) -> Result<(), Status> {
        let loaded = self.view.status_changes().borrow().loaded;
        if loaded { Ok(()) } else { Err(no_leader()) }
    }
}

#[tonic::async_trait]
impl Kv for Services {
    async fn range(&self, request: Request<pb::RangeRequest>) -> Result<Response<pb::RangeResponse>, Status> {
        let scope = self.access.scope()?;
        self.ready()?;
        self.view.read(|keyspace| range(keyspace, &scope, request.get_ref())).map(Response::new)
    }

    async fn put(&self, _: Request<pb::PutRequest>) -> Result<Response<pb::PutResponse>, Status> {
        Err(permission_denied())
    }

    async fn delete_range(
        &self,
        _: Request<pb::DeleteRangeRequest>,
    ) -> Result<Response<pb::DeleteRangeResponse>, Status> {
        Err(permission_denied())
    }

    async fn txn(&self, _: Request<pb::TxnRequest>) -> Result<Response<pb::TxnResponse>, Status> {
        Err(permission_denied())
    }

    async fn compact(&self, _: Request<pb::CompactionRequest>) -> Result<Response<pb::CompactionResponse>, Status> {
        Err(permission_denied())
    }
}

#[tonic::async_trait]
impl Watch for Services {
    type WatchStream = ReceiverStream<Result<pb::WatchResponse, Status>>;

    async fn watch(
        &self,
        request: Request<Streaming<pb::WatchRequest>>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        self.access.scope()?;
        self.ready()?;
        let (answers, receiver) = mpsc::channel(ANSWERS_WAITING);
        let stream = Stream {
            access: Arc::clone(&self.access),
            view: self.view.clone(),
            requests: request.into_inner(),
            answers,
            most_watches: self.limits.watches,
            notify: self.limits.progress_notify,
            cancel: self.cancel.clone(),
        };
        self.streams.spawn(stream.run());
        Ok(Response::new(ReceiverStream::new(receiver)))
    }
}

#[tonic::async_trait]
impl Maintenance for Services {
    async fn status(&self, _: Request<pb::StatusRequest>) -> Result<Response<pb::StatusResponse>, Status> {
        self.access.scope()?;
        self.ready()?;
        let status = self.view.status();
        let store = status.store;
        let number = |pick: fn(&crate::store::StoreStatus) -> u64| store.as_ref().map_or(0, pick);
        let answer = pb::StatusResponse {
            header: Some(status.header.into()),
            version: version(store.as_ref().map(|store| store.version.as_str())).to_owned(),
            db_size: store.as_ref().map_or(0, |store| store.db_size_bytes),
            db_size_in_use: store.as_ref().map_or(0, |store| store.db_in_use_bytes),
            leader: if status.available { number(|store| store.leader) } else { 0 },
            raft_index: number(|store| store.raft_index),
            raft_applied_index: number(|store| store.raft_index),
            raft_term: status.header.raft_term,
            // What etcd says when it cannot take part: readers see that the store is away though we answer.
            errors: if status.available { Vec::new() } else { vec![NO_LEADER.to_owned()] },
            is_learner: false,
        };
        Ok(Response::new(answer))
    }
}

/// etcd's version, as its store said it.
pub(super) fn version(known: Option<&str>) -> &str {
    known.unwrap_or("3.4.0")
}
