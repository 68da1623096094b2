//! Tests of `keyspace`.

use proptest::prelude::*;

use super::*;

const LARGE: Limits = Limits { events: 1_000_000, bytes: 1 << 30 };

fn put(key: &str, value: &str, create: i64, revision: i64, version: i64) -> Event {
    let kv = KeyValue {
        key: Bytes::copy_from_slice(key.as_bytes()),
        value: Bytes::copy_from_slice(value.as_bytes()),
        create_revision: create,
        mod_revision: revision,
        version,
        lease: 0,
    };
    Event { kind: EventKind::Put, kv, previous: None }
}

fn delete(key: &str, revision: i64) -> Event {
    let mut event = put(key, "", 0, revision, 0);
    event.kind = EventKind::Delete;
    event
}

fn header(revision: i64) -> Header {
    Header { cluster_id: 7, member_id: 8, revision, raft_term: 2 }
}

/// A store that does what etcd does, and remembers every state it ever had.
#[derive(Default)]
struct Reference {
    revision: i64,
    states: Vec<BTreeMap<Bytes, KeyValue>>,
}

impl Reference {
    fn new() -> Self {
        Self { revision: 1, states: vec![BTreeMap::new(); 2] }
    }

    fn at(&self, revision: i64) -> &BTreeMap<Bytes, KeyValue> {
        &self.states[usize::try_from(revision).unwrap()]
    }

    /// One transaction; `None` for one that changes nothing.
    fn transact(&mut self, writes: &[(u8, Option<u8>)]) -> Option<Vec<Event>> {
        let revision = self.revision + 1;
        let mut state = self.at(self.revision).clone();
        let mut events: Vec<Event> = Vec::new();
        for (key, value) in writes {
            let name = format!("k{key}");
            if events.iter().any(|event| event.kv.key == name) {
                continue;
            }
            match (value, state.get(name.as_bytes()).cloned()) {
                (Some(value), before) => {
                    let (create, version) = before.map_or((revision, 1), |kv| (kv.create_revision, kv.version + 1));
                    let event = put(&name, &format!("v{value}"), create, revision, version);
                    state.insert(event.kv.key.clone(), event.kv.clone());
                    events.push(event);
                }
                (None, Some(_)) => {
                    state.remove(name.as_bytes());
                    events.push(delete(&name, revision));
                }
                (None, None) => {}
            }
        }
        if events.is_empty() {
            return None;
        }
        self.revision = revision;
        self.states.push(state);
        Some(events)
    }
}

fn transactions() -> impl Strategy<Value = Vec<Vec<(u8, Option<u8>)>>> {
    let write = (0u8..12, proptest::option::weighted(0.7, any::<u8>()));
    proptest::collection::vec(proptest::collection::vec(write, 1..5), 1..120)
}

proptest! {
    #[test]
    fn pinned_reads_see_what_was(work in transactions(), events in 1usize..80, listed_after in 0usize..60) {
        let mut reference = Reference::new();
        let mut keyspace = Keyspace::new(Limits { events, bytes: 1 << 20 });
        keyspace.replace(7, header(1), Vec::new());
        for (index, writes) in work.iter().enumerate() {
            let Some(changes) = reference.transact(writes) else { continue };
            if index == listed_after {
                let list = reference.at(reference.revision).values().cloned().collect();
                keyspace.replace(7, header(reference.revision), list);
            } else {
                keyspace.apply(header(reference.revision), changes).unwrap();
            }
            for revision in 1..=reference.revision {
                match keyspace.readable(revision) {
                    Ok(revision) => {
                        let seen: Vec<&KeyValue> = keyspace.range(&KeyRange::all(), revision).collect();
                        let was: Vec<&KeyValue> = reference.at(revision).values().collect();
                        prop_assert_eq!(seen, was);
                    }
                    Err(error) => {
                        prop_assert_eq!(error, Unreadable::Compacted);
                        prop_assert!(revision < keyspace.oldest());
                    }
                }
            }
        }
    }

    #[test]
    fn the_log_replays_any_readable_state_into_the_newest(work in transactions(), events in 1usize..80, step in 1usize..9) {
        let mut reference = Reference::new();
        let mut keyspace = Keyspace::new(Limits { events, bytes: 1 << 20 });
        keyspace.replace(7, header(1), Vec::new());
        for writes in &work {
            let Some(changes) = reference.transact(writes) else { continue };
            keyspace.apply(header(reference.revision), changes).unwrap();
        }
        for start in keyspace.oldest()..=reference.revision {
            let mut state = reference.at(start).clone();
            let mut position = start;
            loop {
                let batches = match keyspace.since(position + 1, step) {
                    Next::Batches(batches) => batches,
                    Next::UpToDate => break,
                    Next::Forgotten { first } => return Err(TestCaseError::fail(format!("{position} {first}"))),
                };
                for batch in batches {
                    prop_assert!(batch.revision > position);
                    position = batch.revision;
                    for event in &batch.events {
                        prop_assert_eq!(event.previous.as_ref(), state.get(&event.kv.key));
                        match event.kind {
                            EventKind::Put => state.insert(event.kv.key.clone(), event.kv.clone()),
                            EventKind::Delete => state.remove(&event.kv.key),
                        };
                    }
                }
            }
            prop_assert_eq!(&state, reference.at(reference.revision));
        }
        let forgotten = matches!(keyspace.since(keyspace.oldest(), 1), Next::Forgotten { .. });
        prop_assert_eq!(forgotten, keyspace.oldest() > 1);
    }
}

#[test]
fn a_missed_change_is_noticed() {
    let cases: [(Event, bool); 6] = [
        (put("a", "2", 2, 3, 2), true),
        (put("a", "2", 2, 3, 3), false),
        (put("a", "2", 3, 3, 1), false),
        (delete("b", 3), false),
        (put("b", "1", 2, 3, 2), false),
        (put("a", "2", 2, 2, 2), false),
    ];
    for (event, follows) in cases {
        let mut keyspace = Keyspace::new(LARGE);
        keyspace.replace(7, header(1), Vec::new());
        keyspace.apply(header(2), vec![put("a", "1", 2, 2, 1)]).unwrap();
        assert_eq!(keyspace.apply(header(3), vec![event.clone()]).is_ok(), follows, "{event:?}");
    }
}

#[test]
fn a_list_marks_and_sweeps() {
    let mut keyspace = Keyspace::new(LARGE);
    keyspace.replace(7, header(1), Vec::new());
    for (revision, key) in [(2, "kept"), (3, "swept"), (4, "changed")] {
        keyspace.apply(header(revision), vec![put(key, "1", revision, revision, 1)]).unwrap();
    }
    let list = vec![put("changed", "2", 4, 6, 2).kv, put("kept", "1", 2, 2, 1).kv, put("new", "1", 7, 7, 1).kv];
    assert_eq!(keyspace.replace(7, header(8), list.clone()), (2, 2));
    assert_eq!(keyspace.range(&KeyRange::all(), 8).cloned().collect::<Vec<_>>(), list);
    assert_eq!((keyspace.oldest(), keyspace.len()), (8, 3));
    assert!(matches!(keyspace.since(8, 10), Next::Forgotten { first: 9 }));
    assert!(matches!(keyspace.since(9, 10), Next::UpToDate));
}

#[test]
fn memory_of_deleted_keys_goes_with_their_history() {
    let mut keyspace = Keyspace::new(Limits { events: 10, bytes: 1 << 20 });
    keyspace.replace(7, header(1), Vec::new());
    for round in 0..1000 {
        let revision = 2 + round * 2;
        let key = format!("k{round}");
        keyspace.apply(header(revision), vec![put(&key, "v", revision, revision, 1)]).unwrap();
        keyspace.apply(header(revision + 1), vec![delete(&key, revision + 1)]).unwrap();
    }
    assert!(keyspace.keys.len() <= 10, "{}", keyspace.keys.len());
    assert!(keyspace.log.len() <= 10);
}
