//! Behaviour of tables through their public functions.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use proptest::prelude::*;

use super::*;

#[derive(Debug, Clone, PartialEq, Eq)]
struct Thing(u32, &'static str);

impl Row for Thing {
    type Key = u32;
    fn key(&self) -> u32 {
        self.0
    }
}

fn table() -> Table<Thing> {
    Table::new("things", [])
}

fn shown(changes: &[Change<Thing>]) -> Vec<String> {
    changes
        .iter()
        .map(|one| format!("{}{}{}", if one.is_delete() { "-" } else { "+" }, one.row().0, one.row().1))
        .collect()
}

#[test]
fn equal_puts_change_nothing() {
    let table = table();
    assert!(table.put(Thing(1, "a")));
    let version = table.version();
    assert!(!table.put(Thing(1, "a")));
    assert_eq!(table.version(), version);
    assert!(!table.delete(&7));
    assert_eq!(table.version(), version);
}

#[test]
fn snapshots_do_not_change() {
    let table = table();
    table.put(Thing(1, "a"));
    let before = table.snapshot();
    table.put(Thing(1, "b"));
    table.delete(&1);
    assert_eq!(before.get(&1), Some(&Thing(1, "a")));
    assert!(table.snapshot().is_empty());
}

#[test]
fn a_reader_sees_the_last_word_once() {
    let table = table();
    table.put(Thing(1, "a"));
    table.put(Thing(2, "a"));
    let mut changes = table.changes();
    assert_eq!(shown(&changes.next_batch().0), ["+1a", "+2a"]);
    table.put(Thing(1, "b"));
    table.put(Thing(1, "c"));
    table.delete(&2);
    table.put(Thing(3, "a"));
    table.delete(&3);
    assert_eq!(shown(&changes.next_batch().0), ["+1c", "-2a", "-3a"]);
    assert_eq!(changes.next_batch().0, []);
    table.delete(&1);
    table.put(Thing(1, "d"));
    assert_eq!(shown(&changes.next_batch().0), ["+1d"]);
}

#[test]
fn a_new_reader_begins_with_what_is_there() {
    let table = table();
    table.put(Thing(1, "a"));
    table.put(Thing(2, "a"));
    table.delete(&1);
    assert_eq!(shown(&table.changes().next_batch().0), ["+2a"]);
}

#[test]
fn deletes_are_forgotten_when_all_readers_know() {
    let table = table();
    let mut quick = table.changes();
    let mut slow = table.changes();
    table.put(Thing(1, "a"));
    slow.next_batch();
    table.delete(&1);
    quick.next_batch();
    assert_eq!(table.lock().log.len_of_deletes(), 1);
    assert_eq!(shown(&slow.next_batch().0), ["-1a"]);
    assert_eq!(table.lock().log.len_of_deletes(), 0);
    drop((quick, slow));
    table.put(Thing(1, "a"));
    table.delete(&1);
    assert_eq!(table.lock().log.len_of_deletes(), 0);
}

#[test]
fn a_table_is_initialised_when_every_source_has_reported() {
    let table: Table<Thing> = Table::new("things", ["stream", "file"]);
    let mut changes = table.changes();
    table.write(|transaction| transaction.initialised("stream"));
    assert!(!changes.next_batch().1);
    assert_eq!(table.awaited(), ["file"]);
    table.write(|transaction| {
        transaction.put(Thing(1, "a"));
        transaction.initialised("file");
    });
    let (rows, initialised) = changes.next_batch();
    assert!(initialised && rows.len() == 1 && table.snapshot().is_initialised());
}

#[test]
fn status_is_of_one_revision_and_wakes_no_reader() {
    let table = table();
    table.put(Thing(1, "a"));
    let mut changes = table.changes();
    let (batch, _) = changes.next_batch();
    let Some(Change::Put { revision, .. }) = batch.first() else {
        panic!("no put");
    };
    let done = Status::Done { at: SystemTime::UNIX_EPOCH };
    assert!(table.set_status(&1, *revision, done.clone()));
    assert_eq!(changes.next_batch().0, []);
    assert!(table.snapshot().entry(&1).unwrap().status.is_done());
    table.put(Thing(1, "b"));
    assert!(!table.set_status(&1, *revision, done));
    assert_eq!(table.snapshot().entry(&1).unwrap().status, Status::Pending);
}

#[test]
fn replace_touches_only_its_own() {
    let table = table();
    table.write(|transaction| {
        transaction.put(Thing(1, "a"));
        transaction.put(Thing(2, "a"));
        transaction.put(Thing(101, "a"));
    });
    let mut changes = table.changes();
    changes.next_batch();
    table.write(|transaction| transaction.replace([Thing(2, "a"), Thing(3, "a")], |row| row.0 < 100));
    assert_eq!(shown(&changes.next_batch().0), ["-1a", "+3a"]);
    assert_eq!(table.snapshot().len(), 3);
}

#[test]
fn the_hook_hears_of_every_commit_once() {
    struct Heard(AtomicU64);
    impl Hook for Heard {
        fn changed(&self, version: u64) {
            self.0.store(version, Ordering::SeqCst);
        }
    }
    let heard = Arc::new(Heard(AtomicU64::new(0)));
    let hook: Arc<dyn Hook> = Arc::clone(&heard) as Arc<dyn Hook>;
    let table = table().with_hook(hook);
    table.write(|transaction| (transaction.put(Thing(1, "a")), transaction.put(Thing(2, "a"))));
    assert_eq!(heard.0.load(Ordering::SeqCst), 1);
    table.delete(&9);
    assert_eq!(heard.0.load(Ordering::SeqCst), 1);
}

proptest! {
    #[test]
    fn rows_are_as_a_map(steps in proptest::collection::vec((0u32..2000, any::<bool>()), 0..3000), low in 0u32..2000, high in 0u32..2000) {
        let table = table();
        let mut model = BTreeMap::new();
        let mut seen = BTreeMap::new();
        let mut changes = table.changes();
        for (index, (key, put)) in steps.into_iter().enumerate() {
            let row = Thing(key, if index % 2 == 0 { "a" } else { "b" });
            if put {
                table.put(row.clone());
                model.insert(key, row);
            } else {
                prop_assert_eq!(table.delete(&key), model.remove(&key).is_some());
            }
            if index % 7 == 0 {
                apply(&mut seen, changes.next_batch().0);
                prop_assert_eq!(&seen, &model);
            }
        }
        let snapshot = table.snapshot();
        prop_assert_eq!(snapshot.len(), model.len());
        prop_assert!(snapshot.iter().eq(model.values()));
        if low <= high {
            prop_assert!(snapshot.range(low..high).eq(model.range(low..high).map(|(_, row)| row)));
            prop_assert!(snapshot.range(low..=high).eq(model.range(low..=high).map(|(_, row)| row)));
        }
    }
}

fn apply(seen: &mut BTreeMap<u32, Thing>, changes: Vec<Change<Thing>>) {
    for change in changes {
        match change {
            Change::Put { row, .. } => seen.insert(row.0, row),
            Change::Delete { row, .. } => seen.remove(&row.0),
        };
    }
}
