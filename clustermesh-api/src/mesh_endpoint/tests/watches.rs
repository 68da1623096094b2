//! The same watches on real etcd and on the mesh endpoint.

use std::collections::BTreeMap;

use clustermesh_api_proto::etcdserverpb::watch_request::RequestUnion;
use clustermesh_api_proto::etcdserverpb::{
    WatchCancelRequest, WatchCreateRequest, WatchProgressRequest, WatchRequest, WatchResponse,
};
use clustermesh_api_proto::mvccpb;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;
use tonic::{Code, Status, Streaming};

use super::ranges::churn;
use super::world::{World, watch_client, within};
use crate::mesh_endpoint::MeshEndpointLimits;
use crate::store::{KeyRange, ViewConfig};

pub(super) struct Client {
    requests: mpsc::Sender<WatchRequest>,
    /// etcd answers nothing, not even headers, before the first request.
    opening: Option<JoinHandle<Result<Streaming<WatchResponse>, Status>>>,
    answers: Option<Streaming<WatchResponse>>,
}

impl Client {
    pub(super) fn open(channel: &Channel) -> Self {
        let (requests, receiver) = mpsc::channel(64);
        let mut client = watch_client(channel);
        let opening = async move { client.watch(ReceiverStream::new(receiver)).await.map(tonic::Response::into_inner) };
        Self { requests, opening: Some(tokio::spawn(opening)), answers: None }
    }

    async fn send(&self, request: RequestUnion) {
        within(self.requests.send(WatchRequest { request_union: Some(request) })).await.unwrap();
    }

    pub(super) async fn create(&self, create: WatchCreateRequest) {
        self.send(RequestUnion::CreateRequest(create)).await;
    }

    async fn progress(&self) {
        self.send(RequestUnion::ProgressRequest(WatchProgressRequest {})).await;
    }

    pub(super) async fn next(&mut self) -> Result<WatchResponse, Status> {
        if let Some(opening) = self.opening.take() {
            self.answers = Some(within(opening).await.unwrap()?);
        }
        let answers = self.answers.as_mut().expect("it was opened");
        within(answers.message()).await.map(|answer| answer.expect("the stream goes on"))
    }
}

pub(super) fn state() -> WatchCreateRequest {
    let range = KeyRange::prefix("cilium/state/");
    WatchCreateRequest { key: range.wire_start(), range_end: range.wire_end(), ..WatchCreateRequest::default() }
}

/// What watches look at; each is also the key of a last change that all its watches see. The widest comes last.
const PREFIXES: [&str; 4] = ["cilium/state/a", "cilium/state/c/", "cilium/state/b3", "cilium/state/"];

fn create(rng: &mut StdRng, newest: i64) -> WatchCreateRequest {
    let range = KeyRange::prefix(PREFIXES[rng.random_range(0..PREFIXES.len())]);
    let filters = [vec![], vec![], vec![0], vec![1], vec![0, 1]][rng.random_range(0..5)].clone();
    WatchCreateRequest {
        key: range.wire_start(),
        range_end: if rng.random_bool(0.1) { bytes::Bytes::new() } else { range.wire_end() },
        start_revision: if rng.random_bool(0.3) { 0 } else { rng.random_range(1..=newest + 20) },
        filters,
        prev_kv: rng.random_bool(0.5),
        watch_id: if rng.random_bool(0.3) { rng.random_range(1..9) } else { 0 },
        fragment: rng.random_bool(0.3),
        progress_notify: false,
    }
}

/// What a stream said: answers without events, and each watch's events in order.
#[derive(Default)]
struct Said {
    control: Vec<WatchResponse>,
    events: BTreeMap<i64, Vec<mvccpb::Event>>,
}

impl Said {
    async fn listen(&mut self, client: &mut Client) {
        let mut answer = client.next().await.unwrap();
        if answer.events.is_empty() {
            // Which revision a control answer carries depends on when it was made.
            answer.header.as_mut().unwrap().revision = 0;
            self.control.push(answer);
        } else {
            self.events.entry(answer.watch_id).or_default().extend(answer.events);
        }
    }

    fn created(&self) -> impl Iterator<Item = &WatchResponse> {
        self.control.iter().filter(|answer| answer.created)
    }

    /// Whether every watch has seen its last change: etcd serves those that begin in the past when it pleases.
    fn complete(&self, creates: &[WatchCreateRequest], marks: i64) -> bool {
        let mut made = self.created().zip(creates).filter(|(answer, _)| !answer.canceled);
        made.all(|(answer, create)| {
            let last = |event: &mvccpb::Event| {
                let kv = event.kv.as_ref().unwrap();
                let kind = i32::from(!create.filters.contains(&1));
                kv.key == create.key && kv.mod_revision >= marks && event.r#type == kind
            };
            let silent = create.filters == [0, 1];
            silent || self.events.get(&answer.watch_id).is_some_and(|events| events.iter().any(last))
        })
    }
}

async fn run(seed: u64) {
    let mut rng = StdRng::seed_from_u64(seed);
    let world = World::start().await;
    churn(&world.store, &mut rng, 150).await;
    let newest = world.settle().await;
    let mut creates: Vec<WatchCreateRequest> = (0..30).map(|_| create(&mut rng, newest)).collect();
    // An empty range, and one the wrong way round.
    for end in ["cilium/state/b", "cilium/state/a"] {
        creates.push(WatchCreateRequest { key: "cilium/state/b".into(), range_end: end.into(), ..state() });
    }
    let mut streams =
        [Client::open(&world.store.channel()), Client::open(&world.admin())].map(|client| (client, Said::default()));
    for (client, said) in &mut streams {
        for create in &creates {
            client.create(create.clone()).await;
        }
        client.send(RequestUnion::CancelRequest(WatchCancelRequest { watch_id: 4_711 })).await;
        // All must be made before what follows, or "from now on" differs.
        while said.created().count() < creates.len() {
            said.listen(client).await;
        }
    }
    churn(&world.store, &mut rng, 60).await;
    let mut marks = i64::MAX;
    for key in PREFIXES {
        marks = marks.min(world.store.put(key, "1").await.unwrap());
        world.store.delete(&KeyRange::key(key)).await.unwrap();
    }
    for (client, said) in &mut streams {
        while !said.complete(&creates, marks) {
            said.listen(client).await;
        }
    }
    let [(_, real), (_, ours)] = streams;
    assert_eq!(ours.control, real.control);
    for (id, events) in &real.events {
        assert_eq!(ours.events.get(id), Some(events), "watch {id}");
    }
    assert_eq!(ours.events.len(), real.events.len());
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn random_watches_say_what_etcd_says() {
    for seed in [1, 3_559_229_285_698_106_711, rand::random()] {
        let result = tokio::spawn(run(seed)).await;
        assert!(result.is_ok(), "seed {seed}: {result:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_loses_nothing_while_etcd_is_killed_again_and_again() {
    let mut world = World::start().await;
    let mut client = Client::open(&world.admin());
    client.create(WatchCreateRequest { prev_kv: true, ..state() }).await;
    assert!(client.next().await.unwrap().created);
    let store = world.store.clone();
    let writer = tokio::spawn(async move {
        for index in 0..400 {
            loop {
                match store.put(format!("cilium/state/k{}", index % 5), index.to_string()).await {
                    Ok(_) => break,
                    Err(error) => assert!(error.is_transient(), "{error}"),
                }
            }
        }
    });
    let mut last: Option<mvccpb::KeyValue> = None;
    let mut newest: BTreeMap<bytes::Bytes, mvccpb::KeyValue> = BTreeMap::new();
    let (mut revision, mut kills) = (0, 0);
    while last.as_ref().is_none_or(|kv| kv.value != "399") {
        for event in client.next().await.unwrap().events {
            let kv = event.kv.unwrap();
            assert_eq!(event.prev_kv, newest.insert(kv.key.clone(), kv.clone()), "previous value");
            assert!(kv.mod_revision == revision + 1 || revision == 0, "{revision} {kv:?}");
            revision = kv.mod_revision;
            if revision > 100 * (kills + 1) && kills < 3 {
                kills += 1;
                world.kill_etcd().await;
            }
            last = Some(kv);
        }
    }
    assert_eq!(kills, 3);
    within(writer).await.unwrap();
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn progress_is_told_when_all_is_said() {
    let limits =
        MeshEndpointLimits { progress_notify: std::time::Duration::from_millis(50), ..MeshEndpointLimits::default() };
    let world = World::start_with(ViewConfig::default(), limits).await;
    let mut client = Client::open(&world.admin());
    client.create(WatchCreateRequest { progress_notify: true, ..state() }).await;
    assert!(client.next().await.unwrap().created);
    world.store.put("fabric/private", "1").await.unwrap();
    let newest = world.settle().await;
    client.progress().await;
    loop {
        let answer = client.next().await.unwrap();
        assert!(answer.events.is_empty());
        if answer.watch_id == -1 {
            assert_eq!(answer.header.unwrap().revision, newest);
            break;
        }
    }
    // Unasked, every so often, for the watch that wanted it.
    let notice = client.next().await.unwrap();
    assert_eq!((notice.watch_id, notice.header.unwrap().revision), (0, newest));
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_that_is_forgotten_is_cancelled_with_what_can_be_had() {
    let config = ViewConfig { history_events: 10, ..ViewConfig::default() };
    let world = World::start_with(config, MeshEndpointLimits::default()).await;
    for index in 0..30 {
        world.store.put("cilium/state/a", index.to_string()).await.unwrap();
    }
    let newest = world.settle().await;
    let mut client = Client::open(&world.admin());
    client.create(WatchCreateRequest { start_revision: 3, ..state() }).await;
    assert!(client.next().await.unwrap().created);
    let cancelled = client.next().await.unwrap();
    assert!(cancelled.canceled);
    assert_eq!(cancelled.compact_revision, newest - 9);
    client.create(WatchCreateRequest { start_revision: cancelled.compact_revision, ..state() }).await;
    assert!(client.next().await.unwrap().created);
    assert_eq!(client.next().await.unwrap().events.len(), 10);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn real_etcd_says_the_same_of_a_compacted_start() {
    let world = World::start().await;
    for index in 0..30 {
        world.store.put("cilium/state/a", index.to_string()).await.unwrap();
    }
    let newest = world.settle().await;
    world.store.compact(newest).await.unwrap();
    let mut real = Client::open(&world.store.channel());
    real.create(WatchCreateRequest { start_revision: 3, ..state() }).await;
    let created = real.next().await.unwrap();
    assert!(created.created && !created.canceled);
    let cancelled = real.next().await.unwrap();
    // What our own answer copies: no revision, no reason.
    assert!(cancelled.canceled && cancelled.cancel_reason.is_empty() && !cancelled.created);
    assert_eq!((cancelled.compact_revision, cancelled.header.unwrap().revision), (newest, 0));
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_does_not_read_is_cut_and_costs_nothing() {
    let config = ViewConfig { history_events: 100, ..ViewConfig::default() };
    let world = World::start_with(config, MeshEndpointLimits::default()).await;
    let mut slow = Client::open(&world.admin());
    let mut quick = Client::open(&world.admin());
    for client in [&mut slow, &mut quick] {
        client.create(state()).await;
        assert!(client.next().await.unwrap().created);
    }
    // Far more than windows and buffers hold.
    let value = "x".repeat(100_000);
    let mut seen = 0;
    for index in 0..400 {
        world.store.put(format!("cilium/state/k{index}"), value.clone()).await.unwrap();
        while seen <= index {
            seen += quick.next().await.unwrap().events.len();
        }
    }
    let mut read = 0;
    let end = loop {
        let answer = slow.next().await.unwrap();
        if answer.canceled {
            break answer;
        }
        read += answer.events.len();
    };
    assert!(end.compact_revision > 0 && read < 400, "{end:?} after {read}");
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn watches_are_bounded_and_scoped() {
    let limits = MeshEndpointLimits { watches: 3, ..MeshEndpointLimits::default() };
    let world = World::start_with(ViewConfig::default(), limits).await;
    let mut client = Client::open(&world.admin());
    for (key, range_end) in [("fabric/", "fabric0"), ("cilium/state/", "\0"), ("", "\0"), ("cilium/", "cilium0")] {
        client.create(WatchCreateRequest { key: key.into(), range_end: range_end.into(), ..state() }).await;
        let denied = client.next().await.unwrap();
        assert!(denied.created && denied.canceled, "{key}");
        assert_eq!(denied.cancel_reason, "rpc error: code = PermissionDenied desc = etcdserver: permission denied");
    }
    for _ in 0..3 {
        client.create(state()).await;
        assert!(client.next().await.unwrap().created);
    }
    client.create(state()).await;
    assert_eq!(client.next().await.unwrap_err().code(), Code::ResourceExhausted);
    world.stop().await;
}
