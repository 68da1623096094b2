//! What etcd would answer on one Watch stream; no I/O, no clock.
//!
//! [`Session::handle_request`] takes requests, [`Session::poll_response`] gives answers until there is none. A watch holds
//! no events: it reads the view's log at its own pace, and one that falls behind what the log keeps is cancelled with
//! the oldest revision that can be watched, as etcd does after a compaction.
//!
//! Source: etcd 3.4 to 3.6, `server/etcdserver/api/v3rpc/watch.go` and `storage/mvcc`; checked against real etcd in `tests`.

mod fragment;
pub(super) mod io;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use clustermesh_api_proto::etcdserverpb::watch_create_request::FilterType;
use clustermesh_api_proto::etcdserverpb::watch_request::RequestUnion;
use clustermesh_api_proto::etcdserverpb::{ResponseHeader, WatchCreateRequest, WatchRequest, WatchResponse};
use clustermesh_api_proto::mvccpb;
use tonic::Status;

use self::fragment::fragments;
use super::errors::{PERMISSION_DENIED_REASON, stopped, too_many_requests};
use super::scope::Scope;
use crate::store::view::keyspace::{Keyspace, Next};
use crate::store::{Batch, Event, EventKind, KeyRange, KeyValue};

/// Events looked at in one go, so that one watch far behind does not keep others waiting.
const EVENTS_AT_ONCE: usize = 1000;
/// The id of a watch that was not made, and of answers to all.
const NO_WATCH: i64 = -1;

/// One stream.
#[derive(Debug)]
pub(super) struct Session {
    scope: Arc<Scope>,
    generation: u64,
    watches: BTreeMap<i64, Watch>,
    most_watches: usize,
    next_id: i64,
    /// Answers that are ready.
    ready: VecDeque<WatchResponse>,
    /// Where the next round over the watches goes on.
    turn: i64,
    /// A progress request waits until every watch is up to date.
    progress_wanted: bool,
}

#[derive(Debug)]
struct Watch {
    range: KeyRange,
    /// All events before this revision were delivered.
    next: i64,
    no_put: bool,
    no_delete: bool,
    previous: bool,
    fragment: bool,
    notify: bool,
    /// Whether it said anything since the last round of progress notices.
    spoke: bool,
}

impl Session {
    pub(super) fn new(scope: Arc<Scope>, keyspace: &Keyspace, most_watches: usize) -> Self {
        Self {
            scope,
            generation: keyspace.generation(),
            watches: BTreeMap::new(),
            most_watches,
            next_id: 0,
            ready: VecDeque::new(),
            turn: 0,
            progress_wanted: false,
        }
    }

    /// Takes a request.
    ///
    /// # Errors
    /// When the stream must end.
    pub(super) fn handle_request(&mut self, request: WatchRequest, keyspace: &Keyspace) -> Result<(), Status> {
        match request.request_union {
            Some(RequestUnion::CreateRequest(create)) => self.create(&create, keyspace),
            Some(RequestUnion::CancelRequest(cancel)) => {
                // One that does not exist is not answered.
                if self.watches.remove(&cancel.watch_id).is_some() {
                    self.ready.push_back(WatchResponse { canceled: true, ..answer(keyspace, cancel.watch_id) });
                }
                Ok(())
            }
            Some(RequestUnion::ProgressRequest(_)) => {
                self.progress_wanted = true;
                Ok(())
            }
            // A request of a newer etcd: not known, not answered.
            None => Ok(()),
        }
    }

    /// A round of progress notices for the watches that asked for them and had nothing to say since the last.
    pub(super) fn handle_notify_round(&mut self, keyspace: &Keyspace) {
        let head = keyspace.header().revision;
        for (id, watch) in &mut self.watches {
            let quiet = !std::mem::take(&mut watch.spoke);
            if watch.notify && quiet && watch.next > head {
                self.ready.push_back(answer(keyspace, *id));
            }
        }
    }

    /// The next answer; `None`: nothing until the view moves or a request comes.
    ///
    /// # Errors
    /// When the stream must end.
    pub(super) fn poll_response(&mut self, keyspace: &Keyspace) -> Result<Option<WatchResponse>, Status> {
        if keyspace.generation() != self.generation {
            return Err(stopped());
        }
        while self.ready.is_empty() && self.poll_watches(keyspace) {}
        if self.ready.is_empty() && std::mem::take(&mut self.progress_wanted) {
            self.ready.push_back(answer(keyspace, NO_WATCH));
        }
        Ok(self.ready.pop_front())
    }

    fn create(&mut self, create: &WatchCreateRequest, keyspace: &Keyspace) -> Result<(), Status> {
        if self.watches.len() >= self.most_watches {
            return Err(too_many_requests());
        }
        // An empty key stands for the first there can be.
        let key = if create.key.is_empty() { bytes::Bytes::from_static(b"\0") } else { create.key.clone() };
        let range = KeyRange::from_wire(key, create.range_end.clone());
        let refused = |watch_id, reason: &str| WatchResponse {
            created: true,
            canceled: true,
            cancel_reason: reason.to_owned(),
            ..answer(keyspace, watch_id)
        };
        if !self.scope.permits(&range) {
            self.ready.push_back(refused(create.watch_id, PERMISSION_DENIED_REASON));
            return Ok(());
        }
        if range.is_empty() {
            self.ready.push_back(refused(NO_WATCH, "mvcc: watcher range is empty"));
            return Ok(());
        }
        let id = match create.watch_id {
            0 => self.free_id(),
            taken if self.watches.contains_key(&taken) => {
                self.ready.push_back(refused(NO_WATCH, "mvcc: duplicate watch ID provided on the WatchStream"));
                return Ok(());
            }
            free => free,
        };
        self.watches.insert(id, Watch::new(create, range, keyspace));
        self.ready.push_back(WatchResponse { created: true, ..answer(keyspace, id) });
        Ok(())
    }

    fn free_id(&mut self) -> i64 {
        while self.watches.contains_key(&self.next_id) {
            self.next_id += 1;
        }
        self.next_id += 1;
        self.next_id - 1
    }

    /// Gives every watch that is behind one turn. `false`: all are up to date.
    fn poll_watches(&mut self, keyspace: &Keyspace) -> bool {
        let head = keyspace.header().revision;
        let behind = |(id, watch): (&i64, &Watch)| (watch.next <= head).then_some(*id);
        let mut later = self.watches.range(self.turn..).filter_map(behind);
        let Some(id) = later.next().or_else(|| self.watches.iter().find_map(behind)) else { return false };
        self.turn = id.saturating_add(1);
        let Some(watch) = self.watches.get_mut(&id) else { return false };
        match keyspace.since(watch.next, EVENTS_AT_ONCE) {
            Next::Batches(batches) => self.ready.extend(watch.answers(id, keyspace, &self.scope, &batches)),
            Next::Forgotten { first } => {
                self.watches.remove(&id);
                self.ready.push_back(WatchResponse {
                    canceled: true,
                    compact_revision: first,
                    // As etcd, whose answer to this has no revision.
                    header: Some(ResponseHeader { revision: 0, ..keyspace.header().into() }),
                    ..answer(keyspace, id)
                });
            }
            Next::UpToDate => watch.next = head + 1,
        }
        true
    }
}

impl Watch {
    fn new(create: &WatchCreateRequest, range: KeyRange, keyspace: &Keyspace) -> Self {
        let filtered = |filter: FilterType| create.filters.contains(&(filter as i32));
        let next = if create.start_revision <= 0 { keyspace.header().revision + 1 } else { create.start_revision };
        Self {
            range,
            next,
            no_put: filtered(FilterType::Noput),
            no_delete: filtered(FilterType::Nodelete),
            previous: create.prev_kv,
            fragment: create.fragment,
            notify: create.progress_notify,
            spoke: true,
        }
    }

    /// The answers that tell of some batches: none where nothing concerns this watch.
    fn answers(&mut self, id: i64, keyspace: &Keyspace, scope: &Scope, batches: &[Arc<Batch>]) -> Vec<WatchResponse> {
        let Some(last) = batches.last() else { return Vec::new() };
        self.next = last.revision + 1;
        let concerned = |event: &&Event| {
            let filtered = match event.kind {
                EventKind::Put => self.no_put,
                EventKind::Delete => self.no_delete,
            };
            !filtered && self.range.contains(&event.kv.key) && scope.shows(&event.kv.key)
        };
        let events = batches.iter().flat_map(|batch| &batch.events).filter(concerned);
        let events: Vec<mvccpb::Event> = events.map(|event| wire(event, self.previous)).collect();
        if events.is_empty() {
            return Vec::new();
        }
        self.spoke = true;
        let header = ResponseHeader { revision: last.revision, ..keyspace.header().into() };
        let whole = WatchResponse { header: Some(header), watch_id: id, events, ..WatchResponse::default() };
        if self.fragment { fragments(whole) } else { vec![whole] }
    }
}

fn answer(keyspace: &Keyspace, watch_id: i64) -> WatchResponse {
    WatchResponse { header: Some(keyspace.header().into()), watch_id, ..WatchResponse::default() }
}

fn wire(event: &Event, previous: bool) -> mvccpb::Event {
    let kind = match event.kind {
        EventKind::Put => mvccpb::event::EventType::Put,
        EventKind::Delete => mvccpb::event::EventType::Delete,
    };
    let previous = event.previous.as_ref().filter(|_| previous);
    mvccpb::Event {
        r#type: kind.into(),
        kv: Some(event.kv.clone().into()),
        prev_kv: previous.map(|kv| KeyValue::clone(kv).into()),
    }
}

#[cfg(test)]
mod tests;
