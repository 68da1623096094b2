//! Flows as they happen, of all nodes, as long as somebody reads.
//!
//! Each node has a task that reads its stream and begins anew when it ends, from the last flow that it told. All write
//! into one bounded queue; the reader takes from it through a [`Window`] that puts flows in order. When the reader is
//! slow the queue is full: a node's task then waits a little, drops, and counts, and the reader is told how many flows it
//! lost. The tasks end with the stream that owns them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use clustermesh_api_proto::flow::{LostEvent, LostEventSource};
use clustermesh_api_proto::observer::get_flows_response::ResponseTypes;
use clustermesh_api_proto::observer::{GetFlowsRequest, GetFlowsResponse};
use clustermesh_api_proto::relay::NodeState;
use fabric_core::backoff::Backoff;
use futures::Stream;
use prost_types::Timestamp;
use tokio::sync::mpsc::error::{SendTimeoutError, TrySendError};
use tokio::sync::{mpsc, watch};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{Instant, sleep, sleep_until};

use super::directory::Nodes;
use super::merge::Window;
use super::node::{Node, NodeError, NodeFlows};

/// Flows that wait for the reader, beside those in the window.
const QUEUE: usize = 4096;
/// Changes of nodes' states that wait for the reader. Tasks wait for room: they have nothing else to do.
const STATES: usize = 256;
/// A full queue is waited for once, so long: a burst is not yet a slow reader.
const PATIENCE: Duration = Duration::from_secs(1);
/// Waits before a node is asked anew.
const RETRY_FIRST: Duration = Duration::from_millis(250);
const RETRY_LONGEST: Duration = Duration::from_secs(5);

/// Follows all nodes, those that come later too. Ends when dropped.
pub(super) fn follow(
    nodes: watch::Receiver<Nodes>,
    request: GetFlowsRequest,
) -> impl Stream<Item = GetFlowsResponse> + Send {
    let (flows, queue) = mpsc::channel(QUEUE);
    let (states, changes) = mpsc::channel(STATES);
    let lost = Arc::new(AtomicU64::new(0));
    let outlet = Outlet { flows, states, lost: Arc::clone(&lost), choked: false };
    let mut tasks = JoinSet::new();
    tasks.spawn(lead(nodes, request, outlet));
    let reader = Reader { window: Window::default(), queue, changes, lost, _tasks: tasks };
    futures::stream::unfold(reader, |mut reader| async move { Some((reader.next().await?, reader)) })
}

/// The reading end. Owns the tasks: they are aborted with it.
struct Reader {
    window: Window,
    queue: mpsc::Receiver<GetFlowsResponse>,
    changes: mpsc::Receiver<GetFlowsResponse>,
    lost: Arc<AtomicU64>,
    _tasks: JoinSet<()>,
}

impl Reader {
    async fn next(&mut self) -> Option<GetFlowsResponse> {
        loop {
            let lost = self.lost.swap(0, Ordering::Relaxed);
            if lost > 0 {
                return Some(loss(lost));
            }
            self.window.handle_timeout(Instant::now());
            if let Some(answer) = self.window.poll_event() {
                return Some(answer);
            }
            let due = self.window.poll_timeout();
            tokio::select! {
                biased;
                Some(change) = self.changes.recv() => return Some(change),
                flow = self.queue.recv() => {
                    let Some(flow) = flow else {
                        self.window.handle_end();
                        return self.window.poll_event();
                    };
                    self.window.handle_flow(flow, Instant::now());
                }
                () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => {}
            }
        }
    }
}

/// The relay's own loss, which is no node's.
fn loss(count: u64) -> GetFlowsResponse {
    let source = LostEventSource::ObserverEventsQueue.into();
    let lost = LostEvent { source, num_events_lost: count, ..LostEvent::default() };
    GetFlowsResponse {
        node_name: String::new(),
        time: Some(SystemTime::now().into()),
        response_types: Some(ResponseTypes::LostEvents(lost)),
    }
}

/// The writing end, one per task.
#[derive(Debug, Clone)]
struct Outlet {
    flows: mpsc::Sender<GetFlowsResponse>,
    states: mpsc::Sender<GetFlowsResponse>,
    lost: Arc<AtomicU64>,
    /// The queue was full and waiting did not help.
    choked: bool,
}

impl Outlet {
    /// Passes a flow on, or counts it as lost.
    async fn pass(&mut self, answer: GetFlowsResponse) {
        let left = match self.flows.try_send(answer) {
            Ok(()) => None,
            Err(TrySendError::Full(answer)) if self.choked => Some(answer),
            Err(TrySendError::Full(answer)) => match self.flows.send_timeout(answer, PATIENCE).await {
                Ok(()) => None,
                Err(SendTimeoutError::Timeout(answer) | SendTimeoutError::Closed(answer)) => Some(answer),
            },
            Err(TrySendError::Closed(answer)) => Some(answer),
        };
        self.choked = left.is_some();
        if let Some(answer) = left {
            self.lost.fetch_add(flows_in(&answer), Ordering::Relaxed);
        }
    }

    /// Tells how a node is now.
    async fn tell(&self, change: GetFlowsResponse) {
        // Without a reader there is nobody to tell.
        drop(self.states.send(change).await);
    }
}

fn flows_in(answer: &GetFlowsResponse) -> u64 {
    match &answer.response_types {
        Some(ResponseTypes::LostEvents(lost)) => lost.num_events_lost,
        _ => 1,
    }
}

/// Starts a task for each node, also for those that come later, and ends those of nodes that go.
async fn lead(mut nodes: watch::Receiver<Nodes>, request: GetFlowsRequest, outlet: Outlet) {
    let started = Timestamp::from(SystemTime::now());
    let mut running: BTreeMap<String, (Arc<Node>, AbortHandle)> = BTreeMap::new();
    let mut tasks = JoinSet::new();
    let mut late = false;
    loop {
        let now = Arc::clone(&nodes.borrow_and_update());
        let mut gone = Vec::new();
        running.retain(|name, (node, task)| {
            let stays = now.get(name).is_some_and(|new| Arc::ptr_eq(new, node));
            if !stays {
                task.abort();
                gone.push(Arc::clone(node));
            }
            stays
        });
        for node in gone {
            outlet.tell(node.told(NodeState::NodeGone, "no longer in the cluster, or elsewhere".to_owned())).await;
        }
        for (name, node) in now.iter().filter(|(name, _)| !running.contains_key(*name)).collect::<Vec<_>>() {
            let place = Resume { request: request.clone(), started, seen: None, again: late };
            let follower = Follower { node: Arc::clone(node), place, down: late, outlet: outlet.clone() };
            let task = tasks.spawn(follower.run());
            running.insert(name.clone(), (Arc::clone(node), task));
        }
        late = true;
        tokio::select! {
            changed = nodes.changed() => if changed.is_err() { return },
            Some(_) = tasks.join_next() => {}
        }
    }
}

/// Where in a node's flows its reader is.
#[derive(Debug)]
struct Resume {
    request: GetFlowsRequest,
    /// When the reader came.
    started: Timestamp,
    /// Time of the node's newest flow that was passed on.
    seen: Option<Timestamp>,
    /// Whether the node was asked before, or came after the reader.
    again: bool,
}

impl Resume {
    /// What to ask: at first what the reader asked, later what happened since.
    fn next(&mut self) -> GetFlowsRequest {
        let mut request = self.request.clone();
        if std::mem::replace(&mut self.again, true) {
            request.number = 0;
            request.since = self.seen.map(after).or(request.since).or(Some(self.started));
        }
        request
    }

    fn saw(&mut self, time: Option<Timestamp>) {
        let order = |time: &Timestamp| (time.seconds, time.nanos);
        self.seen = self.seen.into_iter().chain(time).max_by_key(order);
    }
}

fn after(time: Timestamp) -> Timestamp {
    let mut after = Timestamp { seconds: time.seconds, nanos: time.nanos.saturating_add(1) };
    after.normalize();
    after
}

/// Reads one node until aborted.
struct Follower {
    node: Arc<Node>,
    place: Resume,
    /// Whether the reader believes that the node gives nothing.
    down: bool,
    outlet: Outlet,
}

impl Follower {
    async fn run(mut self) {
        let mut backoff = Backoff::new(RETRY_FIRST, RETRY_LONGEST);
        loop {
            let error = match self.node.flows(self.place.next()).await {
                Ok(flows) => self.read(flows, &mut backoff).await,
                Err(error) => error,
            };
            if !self.down {
                self.down = true;
                self.outlet.tell(self.node.told(error.state(), error.to_string())).await;
            }
            if matches!(error, NodeError::Refused(_)) {
                return;
            }
            sleep(backoff.next(rand::random())).await;
        }
    }

    async fn read(&mut self, mut flows: NodeFlows, backoff: &mut Backoff) -> NodeError {
        if std::mem::take(&mut self.down) {
            self.outlet.tell(self.node.told(NodeState::NodeConnected, String::new())).await;
        }
        loop {
            match flows.next().await {
                Ok(Some(answer)) => {
                    // Only now: one that accepts and falls silent must not be asked without pause.
                    backoff.reset();
                    if matches!(answer.response_types, Some(ResponseTypes::Flow(_))) {
                        self.place.saw(answer.time);
                    }
                    self.outlet.pass(answer).await;
                }
                Ok(None) => return NodeError::Unavailable("it ended the stream".to_owned()),
                Err(error) => return error,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn time(seconds: i64, nanos: i32) -> Timestamp {
        Timestamp { seconds, nanos }
    }

    fn resume(since: Option<Timestamp>, again: bool) -> Resume {
        let request = GetFlowsRequest { number: 20, follow: true, since, ..GetFlowsRequest::default() };
        Resume { request, started: time(100, 0), seen: None, again }
    }

    #[test]
    fn a_node_goes_on_after_its_last_flow() {
        let mut place = resume(None, false);
        assert_eq!((place.next().number, place.request.since), (20, None));
        assert_eq!((place.next().number, place.next().since), (0, Some(time(100, 0))));
        place.saw(Some(time(120, 999_999_999)));
        place.saw(Some(time(110, 0)));
        place.saw(None);
        assert_eq!(place.next().since, Some(time(121, 0)));
    }

    #[test]
    fn a_late_node_begins_where_the_reader_did() {
        assert_eq!(resume(None, true).next().since, Some(time(100, 0)));
        assert_eq!(resume(Some(time(50, 0)), true).next().since, Some(time(50, 0)));
    }
}
