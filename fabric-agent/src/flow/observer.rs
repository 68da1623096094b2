//! `observer.Observer` over the ring.

use std::collections::BTreeSet;
use std::pin::Pin;
use std::sync::Arc;
use std::time::SystemTime;

use clustermesh_api_proto::flow::{Flow, LostEvent, LostEventSource};
use clustermesh_api_proto::observer::get_flows_response::ResponseTypes;
use clustermesh_api_proto::observer::observer_server::Observer;
use clustermesh_api_proto::observer::{
    GetAgentEventsRequest, GetAgentEventsResponse, GetDebugEventsRequest, GetDebugEventsResponse, GetFlowsRequest,
    GetFlowsResponse, GetNamespacesRequest, GetNamespacesResponse, GetNodesRequest, GetNodesResponse, Namespace,
    ServerStatusRequest, ServerStatusResponse,
};
use futures::Stream;
use tonic::{Request, Response, Status};

use super::filter::Filters;
use super::ring::{CAPACITY, FlowRing, Read};

type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// Serves a ring.
#[derive(Debug, Clone)]
pub(super) struct RingObserver {
    ring: Arc<FlowRing>,
    node: String,
}

impl RingObserver {
    pub(super) fn new(ring: Arc<FlowRing>, node: String) -> Self {
        Self { ring, node }
    }
}

/// A reader's place in the ring and what it wants.
struct Cursor {
    ring: Arc<FlowRing>,
    filters: Filters,
    node: String,
    next: u64,
    /// Where a reader that does not follow ends.
    end: Option<u64>,
    since: Option<SystemTime>,
    until: Option<SystemTime>,
    /// How many more it wants.
    left: u64,
}

impl Cursor {
    /// Takes what there is up to now, `None` when all of it was taken.
    fn take(&mut self) -> Option<GetFlowsResponse> {
        while self.left > 0 && self.end.is_none_or(|end| self.next < end) {
            match self.ring.read(self.next) {
                Read::Later => return None,
                Read::Lost { count, next } => {
                    self.next = next;
                    return Some(lost(count, &self.node));
                }
                Read::Flow(flow) => {
                    self.next += 1;
                    if self.wanted(&flow) {
                        self.left -= 1;
                        return Some(response(&flow, &self.node));
                    }
                }
            }
        }
        None
    }

    fn wanted(&self, flow: &Flow) -> bool {
        let time = flow.time.and_then(|t| SystemTime::try_from(t).ok());
        self.since.is_none_or(|since| time.is_some_and(|t| t >= since))
            && self.until.is_none_or(|until| time.is_some_and(|t| t <= until))
            && self.filters.pass(flow)
    }

    fn over(&self) -> bool {
        self.left == 0 || self.end.is_some_and(|end| self.next >= end)
    }
}

fn response(flow: &Flow, node: &str) -> GetFlowsResponse {
    GetFlowsResponse {
        node_name: node.to_owned(),
        time: flow.time,
        response_types: Some(ResponseTypes::Flow(flow.clone())),
    }
}

fn lost(count: u64, node: &str) -> GetFlowsResponse {
    let lost =
        LostEvent { source: LostEventSource::HubbleRingBuffer.into(), num_events_lost: count, ..LostEvent::default() };
    GetFlowsResponse {
        node_name: node.to_owned(),
        time: Some(SystemTime::now().into()),
        response_types: Some(ResponseTypes::LostEvents(lost)),
    }
}

/// Number of the first flow to show, so that `number` of the newest that pass are shown.
fn start(cursor: &mut Cursor, number: u64) -> u64 {
    let (first, next) = cursor.ring.range();
    let mut passed = 0;
    for at in (first..next).rev() {
        if passed == number {
            return at + 1;
        }
        if let Read::Flow(flow) = cursor.ring.read(at)
            && cursor.wanted(&flow)
        {
            passed += 1;
        }
    }
    first
}

#[tonic::async_trait]
impl Observer for RingObserver {
    type GetFlowsStream = Answers<GetFlowsResponse>;
    type GetAgentEventsStream = Answers<GetAgentEventsResponse>;
    type GetDebugEventsStream = Answers<GetDebugEventsResponse>;

    async fn get_flows(&self, request: Request<GetFlowsRequest>) -> Result<Response<Self::GetFlowsStream>, Status> {
        let request = request.into_inner();
        if request.first && request.follow {
            return Err(Status::invalid_argument("first and follow exclude each other"));
        }
        let filters = Filters::new(&request.whitelist, &request.blacklist)
            .map_err(|e| Status::invalid_argument(e.to_string()))?;
        let (first, next) = self.ring.range();
        let time = |t: Option<prost_types::Timestamp>| t.and_then(|t| SystemTime::try_from(t).ok());
        let mut cursor = Cursor {
            ring: Arc::clone(&self.ring),
            filters,
            node: self.node.clone(),
            next: first,
            end: (!request.follow).then_some(next),
            since: time(request.since),
            until: time(request.until),
            left: u64::MAX,
        };
        if request.first {
            cursor.left = request.number;
        } else if cursor.since.is_none() || request.number > 0 {
            // Following without a number begins with what happens from now on.
            cursor.next = start(&mut cursor, request.number);
        }
        Ok(Response::new(Box::pin(follow(cursor))))
    }

    async fn get_agent_events(
        &self,
        _request: Request<GetAgentEventsRequest>,
    ) -> Result<Response<Self::GetAgentEventsStream>, Status> {
        Err(Status::unimplemented("agent events are not kept"))
    }

    async fn get_debug_events(
        &self,
        _request: Request<GetDebugEventsRequest>,
    ) -> Result<Response<Self::GetDebugEventsStream>, Status> {
        Err(Status::unimplemented("debug events are not kept"))
    }

    async fn get_nodes(&self, _request: Request<GetNodesRequest>) -> Result<Response<GetNodesResponse>, Status> {
        Err(Status::unimplemented("a node knows only itself; ask the API"))
    }

    async fn get_namespaces(
        &self,
        _request: Request<GetNamespacesRequest>,
    ) -> Result<Response<GetNamespacesResponse>, Status> {
        let (first, next) = self.ring.range();
        let mut seen = BTreeSet::new();
        for number in first..next {
            let Read::Flow(flow) = self.ring.read(number) else { continue };
            for side in [&flow.source, &flow.destination].into_iter().flatten().filter(|s| !s.namespace.is_empty()) {
                seen.insert((side.cluster_name.clone(), side.namespace.clone()));
            }
        }
        let namespaces = seen.into_iter().map(|(cluster, namespace)| Namespace { cluster, namespace }).collect();
        Ok(Response::new(GetNamespacesResponse { namespaces }))
    }

    async fn server_status(
        &self,
        _request: Request<ServerStatusRequest>,
    ) -> Result<Response<ServerStatusResponse>, Status> {
        let (first, next) = self.ring.range();
        let uptime = self.ring.since().elapsed();
        Ok(Response::new(ServerStatusResponse {
            num_flows: next - first,
            max_flows: CAPACITY as u64,
            seen_flows: next,
            uptime_ns: u64::try_from(uptime.as_nanos()).unwrap_or(u64::MAX),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            ..ServerStatusResponse::default()
        }))
    }
}

/// What the cursor takes, then what is added, until it is over.
fn follow(cursor: Cursor) -> impl Stream<Item = Result<GetFlowsResponse, Status>> + Send {
    let added = cursor.ring.added();
    futures::stream::unfold((cursor, added), |(mut cursor, mut added)| async move {
        loop {
            // Before looking, so that nothing added meanwhile is missed.
            added.borrow_and_update();
            if let Some(answer) = cursor.take() {
                return Some((Ok(answer), (cursor, added)));
            }
            if cursor.over() || added.changed().await.is_err() {
                return None;
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use futures::StreamExt as _;

    use super::*;

    fn observer(flows: u32) -> RingObserver {
        let ring = Arc::new(FlowRing::new(Instant::now()));
        ring.add((0..flows).map(flow));
        RingObserver::new(ring, "eu/eu1".to_owned())
    }

    fn flow(number: u32) -> Flow {
        Flow { drop_reason: number, time: Some(SystemTime::now().into()), ..Flow::default() }
    }

    fn number(response: &GetFlowsResponse) -> u32 {
        match &response.response_types {
            Some(ResponseTypes::Flow(flow)) => flow.drop_reason,
            other => panic!("{other:?}"),
        }
    }

    async fn ask(observer: &RingObserver, request: GetFlowsRequest) -> Answers<GetFlowsResponse> {
        observer.get_flows(Request::new(request)).await.unwrap().into_inner()
    }

    #[tokio::test]
    async fn newest_come_in_their_order() {
        let request = GetFlowsRequest { number: 3, ..GetFlowsRequest::default() };
        let all: Vec<_> = ask(&observer(10), request).await.collect().await;
        let all: Vec<u32> = all.iter().map(|r| number(r.as_ref().unwrap())).collect();
        assert_eq!(all, [7, 8, 9]);
    }

    #[tokio::test]
    async fn first_come_when_asked_for() {
        let request = GetFlowsRequest { number: 2, first: true, ..GetFlowsRequest::default() };
        let all: Vec<_> = ask(&observer(10), request).await.collect().await;
        assert_eq!(all.len(), 2);
        assert_eq!(number(all[0].as_ref().unwrap()), 0);
    }

    #[tokio::test]
    async fn follower_sees_what_comes_later() {
        let observer = observer(2);
        let mut stream =
            ask(&observer, GetFlowsRequest { number: 1, follow: true, ..GetFlowsRequest::default() }).await;
        assert_eq!(number(&stream.next().await.unwrap().unwrap()), 1);
        observer.ring.add(std::iter::once(flow(42)));
        assert_eq!(number(&stream.next().await.unwrap().unwrap()), 42);
    }

    #[tokio::test]
    async fn contradictions_and_unknown_filters_are_refused() {
        let observer = observer(1);
        let both = GetFlowsRequest { first: true, follow: true, ..GetFlowsRequest::default() };
        assert_eq!(observer.get_flows(Request::new(both)).await.err().unwrap().code(), tonic::Code::InvalidArgument);
    }
}
