//! One watch on etcd, its stream verified: one cluster, revisions that only rise, whole revisions.

use clustermesh_api_proto::etcdserverpb as pb;
use clustermesh_api_proto::etcdserverpb::watch_client::WatchClient;
use clustermesh_api_proto::etcdserverpb::watch_request::RequestUnion;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;
use tonic::{Request, Streaming, metadata::MetadataValue};

use super::client::Store;
use super::error::StoreError;
use super::kv::{Event, Header, KeyRange};

/// Events of a range, as etcd sends them.
#[derive(Debug)]
pub struct StoreWatch {
    store: Store,
    requests: mpsc::Sender<pb::WatchRequest>,
    answers: Streaming<pb::WatchResponse>,
    /// No event may be of an older revision.
    next_revision: i64,
    /// Pieces of a revision that is not complete yet.
    pieces: Vec<Event>,
    pieces_bytes: usize,
}

/// What one message of a watch holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WatchBatch {
    /// etcd's header.
    pub header: Header,
    /// In revision order, revisions whole; empty where etcd only says that it is there.
    pub events: Vec<Event>,
}

impl StoreWatch {
    pub(super) async fn open(
        mut client: WatchClient<Channel>,
        range: &KeyRange,
        from_revision: i64,
        store: Store,
    ) -> Result<Self, StoreError> {
        let (requests, receiver) = mpsc::channel(4);
        let create = pb::WatchCreateRequest {
            key: range.wire_start(),
            range_end: range.wire_end(),
            start_revision: from_revision,
            fragment: true,
            ..pb::WatchCreateRequest::default()
        };
        let create = pb::WatchRequest { request_union: Some(RequestUnion::CreateRequest(create)) };
        let gone = |_| StoreError::Unavailable { detail: "watch ended".to_owned() };
        requests.send(create).await.map_err(gone)?;
        let mut request = Request::new(ReceiverStream::new(receiver));
        // A member without a leader must not serve us an old state for ever.
        request.metadata_mut().insert("hasleader", MetadataValue::from_static("true"));
        let answers = client.watch(request).await;
        let answers = answers.map_err(|status| StoreError::of_status(&status, store.deadline()))?.into_inner();
        let next_revision = from_revision;
        let mut watch = Self { store, requests, answers, next_revision, pieces: Vec::new(), pieces_bytes: 0 };
        let created = watch.message().await?;
        if created.created { Ok(watch) } else { Err(StoreError::protocol("watch answered before it was created")) }
    }

    /// Waits for the next message.
    ///
    /// # Errors
    /// When the stream ended; [`StoreError::Compacted`] where the start is not kept any more. After an error the watch
    /// is of no use.
    ///
    /// # Cancel safety
    /// Nothing is lost when the future is dropped.
    pub async fn next(&mut self) -> Result<WatchBatch, StoreError> {
        loop {
            let message = self.message().await?;
            let header = message.header.map(Header::from).unwrap_or_default();
            let fragment = message.fragment;
            self.collect(message.events)?;
            if !fragment {
                self.pieces_bytes = 0;
                return Ok(WatchBatch { header, events: std::mem::take(&mut self.pieces) });
            }
        }
    }

    /// Asks etcd to say that it is there. Its answer's revision is no bookmark: etcd up to 3.4.24 and 3.5.7 may send it
    /// before older events (etcd#15220).
    ///
    /// # Errors
    /// When the stream ended.
    pub async fn request_progress(&mut self) -> Result<(), StoreError> {
        let progress =
            pb::WatchRequest { request_union: Some(RequestUnion::ProgressRequest(pb::WatchProgressRequest {})) };
        let sent = tokio::time::timeout(self.store.deadline(), self.requests.send(progress)).await;
        match sent {
            Ok(Ok(())) => Ok(()),
            _ => Err(StoreError::Unavailable { detail: "watch takes no requests".to_owned() }),
        }
    }

    async fn message(&mut self) -> Result<pb::WatchResponse, StoreError> {
        let answer = self.answers.message().await;
        let answer = answer.map_err(|status| StoreError::of_status(&status, self.store.deadline()))?;
        let answer = answer.ok_or_else(|| StoreError::Unavailable { detail: "watch ended".to_owned() })?;
        self.store.checked(answer.header)?;
        if answer.canceled || answer.compact_revision != 0 {
            return Err(canceled(&answer));
        }
        Ok(answer)
    }

    fn collect(&mut self, events: Vec<clustermesh_api_proto::mvccpb::Event>) -> Result<(), StoreError> {
        for event in events {
            let event = Event::of_wire(event).ok_or_else(|| StoreError::protocol("event of an unknown kind"))?;
            let found = event.kv.mod_revision;
            if found < self.next_revision {
                return Err(StoreError::WentBack { known: self.next_revision, found });
            }
            self.next_revision = found;
            self.pieces_bytes += event.size_bytes();
            self.pieces.push(event);
        }
        if self.pieces_bytes > self.store.message_limit() {
            return Err(StoreError::TooLarge { detail: format!("a revision of {} bytes", self.pieces_bytes) });
        }
        Ok(())
    }
}

fn canceled(answer: &pb::WatchResponse) -> StoreError {
    if answer.compact_revision != 0 {
        return StoreError::Compacted { compacted: answer.compact_revision };
    }
    let detail = answer.cancel_reason.clone();
    if detail.contains("permission denied") {
        return StoreError::Denied { detail };
    }
    // "no leader" and what else ends a healthy watch.
    StoreError::Unavailable { detail }
}
