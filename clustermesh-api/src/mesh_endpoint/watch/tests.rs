//! Tests of `watch`.

use clustermesh_api_proto::etcdserverpb::{WatchCancelRequest, WatchProgressRequest};
use fabric_core::names::ClusterName;
use proptest::prelude::*;

use super::*;
use crate::store::Header;
use crate::store::view::keyspace::Limits;

const KEYS: [&str; 4] = ["cilium/state/a", "cilium/state/b", "fabric/private", "cilium/synced/eu/x"];

fn keyspace(events: usize) -> Keyspace {
    let mut keyspace = Keyspace::new(Limits { events, bytes: 1 << 30 });
    keyspace.replace(7, header(1), Vec::new());
    keyspace
}

fn header(revision: i64) -> Header {
    Header { cluster_id: 7, member_id: 8, revision, raft_term: 2 }
}

/// Puts each key in turn, one revision each.
fn grow(keyspace: &mut Keyspace, count: usize) {
    for _ in 0..count {
        let revision = keyspace.header().revision + 1;
        let key = KEYS[usize::try_from(revision).unwrap() % KEYS.len()];
        let before = keyspace.get(key.as_bytes());
        let (create_revision, version) = before.map_or((revision, 1), |kv| (kv.create_revision, kv.version + 1));
        let value = revision.to_string().into();
        let kv = KeyValue { key: key.into(), value, create_revision, mod_revision: revision, version, lease: 0 };
        keyspace.apply(header(revision), vec![Event { kind: EventKind::Put, kv, previous: None }]).unwrap();
    }
}

fn session(keyspace: &Keyspace) -> Session {
    Session::new(Arc::new(Scope::remote(&ClusterName::new("eu").unwrap())), keyspace, 100)
}

fn create(session: &mut Session, keyspace: &Keyspace, start_revision: i64, watch_id: i64) {
    let range = KeyRange::prefix("cilium/state/");
    let create = WatchCreateRequest {
        key: range.wire_start(),
        range_end: range.wire_end(),
        start_revision,
        watch_id,
        ..WatchCreateRequest::default()
    };
    request(session, keyspace, RequestUnion::CreateRequest(create));
}

fn request(session: &mut Session, keyspace: &Keyspace, union: RequestUnion) {
    session.handle_request(WatchRequest { request_union: Some(union) }, keyspace).unwrap();
}

fn drain(session: &mut Session, keyspace: &Keyspace) -> Vec<WatchResponse> {
    std::iter::from_fn(|| session.poll_response(keyspace).unwrap()).collect()
}

fn revisions(answers: &[WatchResponse], id: i64) -> Vec<i64> {
    let said = answers.iter().filter(|answer| answer.watch_id == id).flat_map(|answer| &answer.events);
    said.map(|event| event.kv.as_ref().unwrap().mod_revision).collect()
}

proptest! {
    #[test]
    fn every_watch_hears_every_event_once_in_order_whatever_the_pace(
        starts in proptest::collection::vec(1i64..80, 1..6),
        steps in proptest::collection::vec((0usize..12, 0usize..5), 1..12),
    ) {
        let mut keyspace = keyspace(1_000);
        grow(&mut keyspace, 20);
        let mut session = session(&keyspace);
        for start in &starts {
            create(&mut session, &keyspace, *start + 1, 0);
        }
        let mut answers = Vec::new();
        for (grown, polled) in steps {
            grow(&mut keyspace, grown);
            for _ in 0..polled {
                answers.extend(session.poll_response(&keyspace).unwrap());
            }
        }
        answers.extend(drain(&mut session, &keyspace));
        for (id, start) in (0..).zip(&starts) {
            let expected: Vec<i64> = (start + 1..=keyspace.header().revision)
                .filter(|revision| KEYS[usize::try_from(*revision).unwrap() % KEYS.len()].starts_with("cilium/state/"))
                .collect();
            prop_assert_eq!(revisions(&answers, id), expected);
        }
        // An answer's revision is a bookmark: nothing older comes after it on that watch.
        for (id, _) in (0..).zip(&starts) {
            let mut bookmark = 0;
            for answer in answers.iter().filter(|answer| answer.watch_id == id && !answer.created) {
                let oldest = answer.events.iter().map(|event| event.kv.as_ref().unwrap().mod_revision).min();
                prop_assert!(oldest.is_none_or(|oldest| oldest > bookmark));
                bookmark = answer.header.unwrap().revision;
            }
        }
    }
}

#[test]
fn progress_waits_for_watches_that_are_behind() {
    let mut keyspace = keyspace(1_000);
    grow(&mut keyspace, 40);
    let mut session = session(&keyspace);
    create(&mut session, &keyspace, 2, 0);
    request(&mut session, &keyspace, RequestUnion::ProgressRequest(WatchProgressRequest {}));
    let answers = drain(&mut session, &keyspace);
    let progress = answers.iter().position(|answer| answer.watch_id == NO_WATCH).unwrap();
    assert_eq!(progress, answers.len() - 1);
    assert_eq!(answers[progress].header.unwrap().revision, 41);
    assert_eq!(drain(&mut session, &keyspace), []);
}

#[test]
fn one_that_fell_behind_is_cancelled_and_the_others_go_on() {
    let mut keyspace = keyspace(10);
    grow(&mut keyspace, 5);
    let mut session = session(&keyspace);
    create(&mut session, &keyspace, 2, 5);
    create(&mut session, &keyspace, 1_000, 6);
    // The first is not polled while more happens than the log keeps.
    grow(&mut keyspace, 100);
    let answers = drain(&mut session, &keyspace);
    let cancelled: Vec<i64> = answers.iter().filter(|answer| answer.canceled).map(|answer| answer.watch_id).collect();
    assert_eq!(cancelled, [5]);
    assert_eq!(answers.iter().find(|answer| answer.canceled).unwrap().compact_revision, keyspace.oldest() + 1);
    assert!(session.watches.contains_key(&6));
}

#[test]
fn ids_are_given_as_etcd_gives_them() {
    let keyspace = keyspace(10);
    let mut session = session(&keyspace);
    for watch_id in [0, 1, 0, 0] {
        create(&mut session, &keyspace, 0, watch_id);
    }
    request(&mut session, &keyspace, RequestUnion::CancelRequest(WatchCancelRequest { watch_id: 0 }));
    create(&mut session, &keyspace, 0, 0);
    create(&mut session, &keyspace, 0, 1);
    let answers = drain(&mut session, &keyspace);
    let ids: Vec<(i64, bool)> = answers.iter().map(|answer| (answer.watch_id, answer.canceled)).collect();
    assert_eq!(ids, [(0, false), (1, false), (2, false), (3, false), (0, true), (4, false), (-1, true)]);
}

#[test]
fn a_new_generation_ends_the_stream() {
    let mut keyspace = keyspace(10);
    let mut session = session(&keyspace);
    create(&mut session, &keyspace, 0, 0);
    keyspace.replace(9, header(50), Vec::new());
    assert_eq!(session.poll_response(&keyspace).unwrap_err().code(), tonic::Code::Unavailable);
}
