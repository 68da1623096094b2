//! Resuming, ordering, following.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;

fn at(generation: u64, revision: i64) -> Position {
    Position { generation: Generation::new(generation), revision: Revision::new(revision).unwrap() }
}

fn changes(position: Position, rows: &[(u32, bool)]) -> Message<u32> {
    Message { position, rows: rows.to_vec(), list_begin: false, list_end: false }
}

fn list(position: Position, keys: &[u32]) -> Message<u32> {
    let rows = keys.iter().map(|key| (*key, false)).collect();
    Message { position, rows, list_begin: true, list_end: true }
}

#[test]
fn resume_or_list() {
    let kept = Kept { now: at(7, 100), log_after: Revision::new(40).unwrap() };
    let cases = [
        (Position::NONE, Resume::FullList(WhyFull::FirstContact)),
        (at(6, 100), Resume::FullList(WhyFull::OtherGeneration)),
        (at(7, 101), Resume::FullList(WhyFull::StoreWentBack)),
        (at(7, 100), Resume::UpToDate),
        (at(7, 40), Resume::After(Revision::new(40).unwrap())),
        (at(7, 39), Resume::FullList(WhyFull::LogTooShort)),
    ];
    for (reader, expected) in cases {
        assert_eq!(resume(reader, kept), expected, "{reader:?}");
    }
}

#[test]
fn order_of_a_batch() {
    use RowKind::{Cluster, Identity, Ip, Node, Policy};
    let mut batch = vec![(Policy, false), (Ip, true), (Ip, false), (Identity, true), (Cluster, false), (Node, true)];
    order(&mut batch, |change| change.0, |change| change.1);
    assert_eq!(batch, [(Cluster, false), (Ip, true), (Node, true), (Identity, true), (Ip, false), (Policy, false)]);
}

#[test]
fn a_list_sweeps_what_it_does_not_name() {
    let mut follower = Follower::restore(at(7, 5), BTreeSet::from([1, 2, 3]));
    follower.handle_connected();
    let mut first = list(at(7, 9), &[2]);
    first.list_end = false;
    assert_eq!(follower.handle_message(&first).unwrap(), Step::Apply);
    assert!(!follower.is_in_step());
    assert_eq!(follower.position(), at(7, 5));
    let last = Message { list_end: true, ..changes(at(7, 9), &[(4, false)]) };
    assert_eq!(follower.handle_message(&last).unwrap(), Step::ApplyAndSweep(vec![1, 3]));
    assert!(follower.is_in_step());
    assert_eq!(follower.position(), at(7, 9));
}

#[test]
fn a_list_that_was_cut_off_sweeps_nothing() {
    let mut follower = Follower::restore(at(7, 5), BTreeSet::from([1, 2, 3]));
    let begun = Message { list_end: false, ..list(at(8, 1), &[2]) };
    follower.handle_message(&begun).unwrap();
    follower.handle_connected();
    assert_eq!(follower.position(), at(7, 5));
    assert_eq!(follower.handle_message(&changes(at(7, 6), &[(9, false)])).unwrap(), Step::Apply);
}

#[test]
fn broken_promises_are_found() {
    let mut follower = Follower::restore(at(7, 5), BTreeSet::new());
    let refused = |follower: &mut Follower<u32>, message: &Message<u32>| follower.handle_message(message).unwrap_err();
    assert!(matches!(refused(&mut follower, &changes(at(7, 4), &[])), ProtocolError::WentBack { .. }));
    assert_eq!(refused(&mut follower, &changes(at(8, 6), &[])), ProtocolError::GenerationChanged);
    let end = Message { list_end: true, ..changes(at(7, 6), &[]) };
    assert_eq!(refused(&mut follower, &end), ProtocolError::ListOutOfPlace);
    let delete = Message { list_begin: true, ..changes(at(7, 6), &[(1, true)]) };
    assert_eq!(refused(&mut follower, &delete), ProtocolError::DeleteInList);
    assert_eq!(follower.position(), at(7, 5));
    // A list may lead anywhere: the store was restored.
    follower.handle_message(&list(at(8, 1), &[1])).unwrap();
    assert_eq!(follower.position(), at(8, 1));
}

/// A server in a few lines, to follow.
#[derive(Default)]
struct Server {
    rows: BTreeMap<u32, i64>,
    log: Vec<(i64, u32, bool)>,
    log_after: i64,
    revision: i64,
    generation: u64,
}

impl Server {
    fn write(&mut self, key: u32, delete: bool) {
        self.revision += 1;
        if delete {
            self.rows.remove(&key);
        } else {
            self.rows.insert(key, self.revision);
        }
        self.log.push((self.revision, key, delete));
    }

    fn now(&self) -> Position {
        at(self.generation, self.revision)
    }

    fn answer(&self, reader: Position) -> Message<u32> {
        let kept = Kept { now: self.now(), log_after: Revision::new(self.log_after).unwrap() };
        match resume(reader, kept) {
            Resume::UpToDate => changes(self.now(), &[]),
            Resume::After(after) => {
                let rows: Vec<(u32, bool)> = self
                    .log
                    .iter()
                    .filter(|(at, ..)| *at > after.value())
                    .map(|(_, key, delete)| (*key, *delete))
                    .collect();
                changes(self.now(), &rows)
            }
            Resume::FullList(_) => list(self.now(), &self.rows.keys().copied().collect::<Vec<_>>()),
        }
    }
}

proptest! {
    /// Writes, contacts, compactions and restores in any order: after each contact both ends hold the same rows.
    #[test]
    fn a_follower_ends_with_what_the_server_has(steps in proptest::collection::vec((0u8..8, 0u32..12), 1..120)) {
        let mut server = Server { generation: 1, ..Server::default() };
        let mut follower = Follower::new();
        let mut held = BTreeSet::new();
        for (step, key) in steps {
            match step {
                0..=2 => server.write(key, false),
                3 => server.write(key, true),
                4 => {
                    server.log_after = server.revision;
                    server.log.clear();
                }
                5 => {
                    // Restored from a backup: fewer rows, a lower revision, another life.
                    server.generation += 1;
                    server.revision /= 2;
                    server.rows.retain(|known, _| *known < key);
                    server.log_after = server.revision;
                    server.log.clear();
                }
                _ => {
                    follower.handle_connected();
                    let message = server.answer(follower.position());
                    let outcome = follower.handle_message(&message).unwrap();
                    for (key, deleted) in message.rows {
                        if deleted { held.remove(&key); } else { held.insert(key); }
                    }
                    if let Step::ApplyAndSweep(swept) = outcome {
                        for key in swept { prop_assert!(held.remove(&key)); }
                    }
                    prop_assert!(held.iter().eq(server.rows.keys()));
                    prop_assert!(follower.is_in_step());
                }
            }
        }
    }
}
