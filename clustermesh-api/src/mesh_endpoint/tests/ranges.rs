//! The same requests to real etcd and to the mesh endpoint.

use bytes::Bytes;
use clustermesh_api_proto::etcdserverpb::{RangeRequest, RangeResponse};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tonic::Status;

use super::world::{World, range};
use crate::store::{KeyRange, Store, Transaction};

/// Go's sort keeps the order of equals only up to this many elements.
const STABLE: i64 = 12;

fn key(rng: &mut StdRng) -> String {
    let names = ["a", "ab", "b", "c/d", "c/", "\u{7f}", "zz"];
    format!("cilium/state/{}{}", names[rng.random_range(0..names.len())], rng.random_range(0..6))
}

/// Random transactions, private keys among them.
pub(super) async fn churn(store: &Store, rng: &mut StdRng, count: usize) {
    for _ in 0..count {
        let mut transaction = Transaction::new();
        let mut used = Vec::new();
        for _ in 0..rng.random_range(1..4) {
            let key = key(rng);
            if used.contains(&key) {
                continue;
            }
            used.push(key.clone());
            transaction = match rng.random_range(0..10) {
                0..6 => transaction.put(key, format!("v{}", rng.random_range(0..5))),
                6..9 => transaction.delete(key),
                _ => transaction.put(format!("fabric/private{}", used.len()), "hidden"),
            };
        }
        if rng.random_ratio(1, 25) {
            transaction = Transaction::new().delete_range(KeyRange::prefix("cilium/state/a"));
        }
        assert!(store.transact(transaction).await.unwrap().done().is_some());
    }
}

fn request(rng: &mut StdRng, newest: i64) -> RangeRequest {
    let edge = |rng: &mut StdRng| match rng.random_range(0..5) {
        0 => "cilium/state/".to_owned(),
        1 => "cilium/state/ab".to_owned(),
        _ => key(rng),
    };
    let start = edge(rng);
    let end = match rng.random_range(0..5) {
        0 => Bytes::new(),
        1 => KeyRange::prefix(start.clone()).wire_end(),
        2 => Bytes::from("cilium/state0"),
        _ => edge(rng).into(),
    };
    let mut maybe = |likely: u32, value: i64| if rng.random_ratio(likely, 10) { value } else { 0 };
    let revision = maybe(4, newest + 3);
    let (limit, bounds) = (maybe(5, 20), [maybe(2, newest), maybe(2, newest), maybe(2, newest), maybe(2, newest)]);
    let mut below = |top: i64| if top == 0 { 0 } else { rng.random_range(1..=top) };
    RangeRequest {
        key: if start.len() % 17 == 0 { Bytes::new() } else { start.into() },
        range_end: end,
        limit: below(limit),
        revision: below(revision),
        min_mod_revision: below(bounds[0]),
        max_mod_revision: below(bounds[1]),
        min_create_revision: below(bounds[2]),
        max_create_revision: below(bounds[3]),
        sort_order: rng.random_range(0..10) % 4 % 3,
        sort_target: rng.random_range(0..5),
        serializable: rng.random_bool(0.3),
        keys_only: rng.random_bool(0.2),
        count_only: rng.random_bool(0.15),
    }
}

/// What must be equal: everything, but the order of keys that sort equal where Go's sort is free.
fn comparable(request: &RangeRequest, answer: Result<RangeResponse, Status>) -> Result<RangeResponse, String> {
    let mut answer = answer.map_err(|status| format!("{:?} {}", status.code(), status.message()))?;
    let free = request.sort_target != 0 && answer.count > STABLE;
    if free {
        // By what is sorted by, then by key; with a limit only the sort values are determined.
        for kv in &mut answer.kvs {
            if request.limit != 0 {
                let (version, create, modified) = (kv.version, kv.create_revision, kv.mod_revision);
                let value = std::mem::take(&mut kv.value);
                *kv = clustermesh_api_proto::mvccpb::KeyValue::default();
                match request.sort_target {
                    1 => kv.version = version,
                    2 => kv.create_revision = create,
                    3 => kv.mod_revision = modified,
                    _ => kv.value = value,
                }
            }
        }
        if request.limit == 0 {
            answer.kvs.sort_by(|a, b| a.key.cmp(&b.key));
        }
    }
    Ok(answer)
}

async fn compare(world: &World, rng: &mut StdRng, count: usize) {
    let newest = world.settle().await;
    let (real, ours) = (world.store.channel(), world.admin());
    for _ in 0..count {
        let request = request(rng, newest);
        let expected = comparable(&request, range(&real, request.clone()).await);
        let found = comparable(&request, range(&ours, request.clone()).await);
        assert_eq!(found, expected, "{request:?}");
    }
}

async fn run(seed: u64) {
    let mut rng = StdRng::seed_from_u64(seed);
    let world = World::start().await;
    // Some requests on an empty store, more as it fills.
    compare(&world, &mut rng, 20).await;
    for _ in 0..4 {
        churn(&world.store, &mut rng, 60).await;
        compare(&world, &mut rng, 250).await;
    }
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn random_requests_are_answered_as_etcd_does() {
    for seed in [1, 2, rand::random()] {
        let result = tokio::spawn(run(seed)).await;
        assert!(result.is_ok(), "seed {seed}: {result:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_at_a_pinned_revision_make_the_whole_under_writes() {
    let world = World::start().await;
    for chunk in (0..600).collect::<Vec<_>>().chunks(100) {
        let write = |transaction: Transaction, index: &i32| transaction.put(format!("cilium/state/n{index:04}"), "1");
        world.store.transact(chunk.iter().fold(Transaction::new(), write)).await.unwrap();
    }
    let pinned = world.settle().await;
    let ours = world.admin();
    let mut request = RangeRequest {
        key: "cilium/state/".into(),
        range_end: "cilium/state0".into(),
        limit: 256,
        ..RangeRequest::default()
    };
    let (mut keys, mut left) = (Vec::new(), 600);
    loop {
        let page = range(&ours, request.clone()).await.unwrap();
        assert_eq!(page.count, left);
        left -= i64::try_from(page.kvs.len()).unwrap();
        keys.extend(page.kvs.iter().map(|kv| kv.key.clone()));
        if !page.more {
            break;
        }
        request.revision = pinned;
        request.key = [&keys.last().unwrap()[..], b"\0"].concat().into();
        // What is written meanwhile is not seen.
        world.store.delete(&KeyRange::key("cilium/state/n0400")).await.unwrap();
        world.store.put("cilium/state/n0300x", "new").await.unwrap();
        world.settle().await;
    }
    assert_eq!((left, keys.len()), (0, 600));
    assert!(keys.iter().enumerate().all(|(index, key)| *key == format!("cilium/state/n{index:04}")));
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_view_forgot_is_compacted() {
    let config = crate::store::ViewConfig { history_events: 10, ..crate::store::ViewConfig::default() };
    let world = World::start_with(config, crate::mesh_endpoint::MeshEndpointLimits::default()).await;
    for index in 0..30 {
        world.store.put("cilium/state/a", index.to_string()).await.unwrap();
    }
    let newest = world.settle().await;
    let ours = world.admin();
    let at = |revision| RangeRequest { key: "cilium/state/a".into(), revision, ..RangeRequest::default() };
    assert_eq!(range(&ours, at(newest - 10)).await.unwrap().kvs[0].value, "19");
    let status = range(&ours, at(newest - 11)).await.unwrap_err();
    assert_eq!(status.code(), tonic::Code::OutOfRange);
    assert_eq!(status.message(), "etcdserver: mvcc: required revision has been compacted");
    world.stop().await;
}
