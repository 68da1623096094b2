//! One agent's stream: from its position to the table's, for as long as it may listen.

use std::collections::VecDeque;
use std::time::Duration;

use clustermesh_api_proto::fabric::v1 as proto;
use futures::Stream;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tonic::Status;

use super::table::{Delta, SyncTable};
use crate::store::{Position, ViewStatus};

/// Changes per message: far below gRPC's 4 MiB, whatever the labels.
const CHANGES_PER_MESSAGE: usize = 256;
/// An agent hears at least this often, so that it can tell silence from peace.
const HEARTBEAT: Duration = Duration::from_secs(3);
/// Under load, changes of this long are sent together: cost is per message. An idle table's change goes at once.
const GATHER: Duration = Duration::from_millis(40);

/// What a stream is made of.
#[derive(Debug)]
pub struct StreamParams<Permit> {
    /// The rows.
    pub table: SyncTable,
    /// How the store is.
    pub store: watch::Receiver<ViewStatus>,
    /// Where the agent's state ends.
    pub from: Position,
    /// Whether the agent may (still) listen; asked before each message.
    pub permit: Permit,
    /// Ends the stream.
    pub stop: CancellationToken,
}

struct State<Permit> {
    table: SyncTable,
    positions: watch::Receiver<Position>,
    store: watch::Receiver<ViewStatus>,
    at: Position,
    permit: Permit,
    stop: CancellationToken,
    ready: VecDeque<proto::SyncResponse>,
    available: bool,
    last_sent: Option<Instant>,
    ended: bool,
}

/// Builds the stream. It owns no task: it works while it is polled, so a slow agent holds back itself alone.
pub fn stream<Permit>(params: StreamParams<Permit>) -> impl Stream<Item = Result<proto::SyncResponse, Status>> + Send
where
    Permit: Fn() -> Result<(), Status> + Send + 'static,
{
    let StreamParams { table, store, from, permit, stop } = params;
    let positions = table.positions();
    let state = State {
        table,
        positions,
        store,
        at: from,
        permit,
        stop,
        ready: VecDeque::new(),
        available: true,
        last_sent: None,
        ended: false,
    };
    futures::stream::unfold(state, |mut state| async move {
        let item = state.next().await?;
        Some((item, state))
    })
}

impl<Permit: Fn() -> Result<(), Status>> State<Permit> {
    async fn next(&mut self) -> Option<Result<proto::SyncResponse, Status>> {
        if self.ended {
            return None;
        }
        loop {
            if let Err(refusal) = (self.permit)() {
                self.ended = true;
                return Some(Err(refusal));
            }
            if let Some(message) = self.ready.pop_front() {
                self.last_sent = Some(Instant::now());
                return Some(Ok(message));
            }
            self.fill();
            if self.ready.is_empty() && !self.wait().await {
                self.ended = true;
                return Some(Err(Status::unavailable("FAB-5103 the API is stopping; connect again")));
            }
        }
    }

    /// Queues what the agent lacks, if anything.
    fn fill(&mut self) {
        let now = self.table.position();
        let available = self.store.borrow().available;
        // Before the store was listed once there is nothing to say.
        if now != Position::default() && (now != self.at || self.last_sent.is_none()) {
            self.positions.mark_unchanged();
            let (to, delta) = self.table.since(self.at);
            self.ready.extend(messages(self.at, to, delta, available));
            self.at = to;
        } else if available != self.available {
            self.ready.push_back(empty(self.at, available));
        }
        self.available = available;
    }

    /// Waits until there may be something to send. `false`: the stream is to end.
    async fn wait(&mut self) -> bool {
        let quiet = HEARTBEAT.saturating_sub(self.last_sent.map_or(Duration::ZERO, |at| at.elapsed()));
        let heartbeat = tokio::select! {
            biased;
            () = self.stop.cancelled() => return false,
            changed = self.positions.changed() => {
                if changed.is_err() { return false; }
                false
            }
            changed = self.store.changed() => {
                if changed.is_err() { return false; }
                false
            }
            () = tokio::time::sleep(quiet) => true,
        };
        if heartbeat && self.last_sent.is_some() {
            self.ready.push_back(empty(self.at, self.store.borrow().available));
            return true;
        }
        if let Some(pause) = self.last_sent.and_then(|at| GATHER.checked_sub(at.elapsed())) {
            tokio::select! {
                () = self.stop.cancelled() => return false,
                () = tokio::time::sleep(pause) => {}
            }
        }
        true
    }
}

fn empty(at: Position, available: bool) -> proto::SyncResponse {
    proto::SyncResponse {
        generation: at.generation,
        revision: at.revision,
        store_unavailable: !available,
        ..Default::default()
    }
}

/// Cuts a delta into messages. Only the last one moves the agent's position: one that is interrupted resumes from before.
fn messages(from: Position, to: Position, delta: Delta, available: bool) -> Vec<proto::SyncResponse> {
    let (changes, list) = match delta {
        Delta::List(rows) => (rows, true),
        Delta::Changes(rows) => (rows, false),
    };
    // While a list runs, the agent has no position that it could resume from.
    let before = if list { Position::default() } else { from };
    let count = changes.len().div_ceil(CHANGES_PER_MESSAGE).max(1);
    let mut rest = changes.into_iter();
    (0..count)
        .map(|index| {
            let last = index + 1 == count;
            let at = if last { to } else { before };
            proto::SyncResponse {
                generation: to.generation,
                revision: at.revision,
                changes: rest.by_ref().take(CHANGES_PER_MESSAGE).collect(),
                list_begin: list && index == 0,
                list_end: list && last,
                store_unavailable: !available,
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Header;
    use crate::sync_server::table::RowKey;
    use futures::StreamExt as _;
    use proto::change::Row;
    use std::collections::BTreeMap;
    use std::pin::pin;

    fn at(revision: i64) -> Position {
        Position { generation: 7, revision }
    }

    fn identity(id: u32) -> (RowKey, Row) {
        (RowKey::Identity(id), Row::Identity(proto::Identity { id, ..Default::default() }))
    }

    fn status(available: bool) -> ViewStatus {
        let header = Header::default();
        ViewStatus {
            loaded: true,
            available,
            detail: String::new(),
            generation: 7,
            header,
            oldest_revision: 0,
            store: None,
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_list_then_changes_then_a_heartbeat_then_the_end() {
        let table = SyncTable::default();
        table.replace(at(5), (0..600).map(identity).collect::<BTreeMap<_, _>>());
        let (store, receiver) = watch::channel(status(true));
        let stop = CancellationToken::new();
        let params =
            StreamParams { table: table.clone(), store: receiver, from: Position::default(), permit: || Ok(()), stop };
        let stop = params.stop.clone();
        let mut stream = pin!(stream(params));
        let mut list = Vec::new();
        for _ in 0..3 {
            list.push(stream.next().await.unwrap().unwrap());
        }
        assert_eq!(list.iter().map(|m| m.changes.len()).sum::<usize>(), 600);
        assert_eq!(
            list.iter().map(|m| (m.list_begin, m.list_end, m.revision)).collect::<Vec<_>>(),
            [(true, false, 0), (false, false, 0), (false, true, 5)]
        );
        let (key, row) = identity(1000);
        table.apply(6, vec![(key, Some(row))]);
        let change = stream.next().await.unwrap().unwrap();
        assert_eq!((change.changes.len(), change.revision, change.list_begin), (1, 6, false));
        store.send_replace(status(false));
        assert!(stream.next().await.unwrap().unwrap().store_unavailable);
        let beat = stream.next().await.unwrap().unwrap();
        assert_eq!((beat.changes.len(), beat.revision, beat.store_unavailable), (0, 6, true));
        stop.cancel();
        assert!(stream.next().await.unwrap().is_err());
        assert!(stream.next().await.is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn one_in_step_is_told_so_at_once_and_one_refused_ends() {
        let table = SyncTable::default();
        table.replace(at(5), BTreeMap::new());
        let (_store, receiver) = watch::channel(status(true));
        let params = StreamParams {
            table: table.clone(),
            store: receiver.clone(),
            from: at(5),
            permit: || Ok(()),
            stop: CancellationToken::new(),
        };
        let first = pin!(stream(params)).next().await.unwrap().unwrap();
        assert_eq!((first.revision, first.list_begin, first.changes.len()), (5, false, 0));
        let params = StreamParams {
            table,
            store: receiver,
            from: at(5),
            permit: || Err(Status::permission_denied("no")),
            stop: CancellationToken::new(),
        };
        let mut refused = pin!(stream(params));
        assert!(refused.next().await.unwrap().is_err());
        assert!(refused.next().await.is_none());
    }
}
