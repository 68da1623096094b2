//! The generic driver of one kernel map.
//!
//! It remembers what the map holds, so that an unchanged row costs nothing; [`MapDriver::reload`] reads the map anew and
//! so finds what others changed. A row that cannot be written is tried again with back-off and blocks none beside it.

use std::collections::BTreeMap;
use std::fmt;
use std::time::{Duration, Instant};

use fabric_agent_datapath::{MapError, Rows};
use fabric_core::backoff::Backoff;

const RETRY_FIRST: Duration = Duration::from_millis(100);
const RETRY_LAST: Duration = Duration::from_secs(30);

/// A kernel map, or a fake of one.
pub(crate) type Target<K, V> = Box<dyn Rows<Key = K, Value = V> + Send>;

struct Failure {
    backoff: Backoff,
    retry_at: Instant,
    error: String,
}

/// One map, what it holds, and what could not be written.
pub(crate) struct MapDriver<K, V> {
    name: &'static str,
    target: Target<K, V>,
    present: BTreeMap<K, V>,
    loaded: bool,
    failures: BTreeMap<K, Failure>,
}

impl<K: fmt::Debug, V> fmt::Debug for MapDriver<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (rows, failed) = (self.present.len(), self.failures.len());
        f.debug_struct("MapDriver")
            .field("name", &self.name)
            .field("rows", &rows)
            .field("failed", &failed)
            .finish_non_exhaustive()
    }
}

/// Rows that were there before and say something else now, or are gone.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Changes<K, V> {
    /// How many rows were written, new ones included.
    pub(crate) written: usize,
    /// What was there before the write, or before the removal.
    pub(crate) replaced: Vec<(K, V)>,
}

impl<K, V> Default for Changes<K, V> {
    fn default() -> Self {
        Self { written: 0, replaced: Vec::new() }
    }
}

impl<K: Copy + Ord + fmt::Debug, V: Copy + Eq> MapDriver<K, V> {
    pub(crate) fn new(name: &'static str, target: Target<K, V>) -> Self {
        Self { name, target, present: BTreeMap::new(), loaded: false, failures: BTreeMap::new() }
    }

    /// Reads what the map holds.
    pub(crate) fn reload(&mut self) -> Result<(), MapError> {
        self.present = self.target.list()?.into_iter().collect();
        self.loaded = true;
        Ok(())
    }

    /// Reads what the map holds, the first time.
    pub(crate) fn ensure_loaded(&mut self) -> Result<(), MapError> {
        if self.loaded { Ok(()) } else { self.reload() }
    }

    /// Writes the rows that the map lacks, of those that `part` picks.
    pub(crate) fn put(&mut self, wanted: &BTreeMap<K, V>, part: impl Fn(&K) -> bool, now: Instant) -> Changes<K, V> {
        let mut changes = Changes::default();
        let missing: Vec<(K, V)> = wanted
            .iter()
            .map(|(key, value)| (self.target.canonical(key), *value))
            .filter(|(key, value)| part(key) && self.present.get(key) != Some(value) && self.is_due(key, now))
            .collect();
        if missing.is_empty() {
            return changes;
        }
        let whole = self.target.upsert_all(&missing).is_ok();
        for (key, value) in missing {
            // A batch that failed somewhere is gone through row by row, to find out where.
            let written = if whole { Ok(()) } else { self.target.upsert(&key, &value) };
            match written {
                Ok(()) => {
                    self.failures.remove(&key);
                    changes.written += 1;
                    changes.replaced.extend(self.present.insert(key, value).map(|old| (key, old)));
                }
                Err(error) => self.failed(key, &error, now),
            }
        }
        changes
    }

    /// Deletes the rows that are not wanted, of those that `part` picks.
    pub(crate) fn prune(&mut self, wanted: &BTreeMap<K, V>, part: impl Fn(&K) -> bool, now: Instant) -> Changes<K, V> {
        let wanted: std::collections::BTreeSet<K> = wanted.keys().map(|key| self.target.canonical(key)).collect();
        let mut changes = Changes::default();
        self.failures.retain(|key, _| wanted.contains(key) || self.present.contains_key(key));
        let gone: Vec<K> = self.present.keys().filter(|key| part(key) && !wanted.contains(key)).copied().collect();
        for key in gone.into_iter().filter(|key| self.is_due(key, now)).collect::<Vec<_>>() {
            match self.target.delete(&key) {
                Ok(_) => {
                    self.failures.remove(&key);
                    changes.replaced.extend(self.present.remove(&key).map(|old| (key, old)));
                }
                Err(error) => self.failed(key, &error, now),
            }
        }
        changes
    }

    fn is_due(&self, key: &K, now: Instant) -> bool {
        self.failures.get(key).is_none_or(|failure| failure.retry_at <= now)
    }

    fn failed(&mut self, key: K, error: &MapError, now: Instant) {
        let fresh = || Failure { backoff: Backoff::new(RETRY_FIRST, RETRY_LAST), retry_at: now, error: String::new() };
        let failure = self.failures.entry(key).or_insert_with(fresh);
        failure.retry_at = now + failure.backoff.next(rand::random());
        failure.error = error.to_string();
    }

    /// When to come again, for rows that could not be written.
    pub(crate) fn retry_at(&self) -> Option<Instant> {
        self.failures.values().map(|failure| failure.retry_at).min()
    }

    /// Whether a row could not be written.
    pub(crate) fn has_failed(&self, key: &K) -> bool {
        self.failures.contains_key(key)
    }

    /// Whether the map is as wanted, for this row.
    pub(crate) fn holds(&self, key: &K, value: &V) -> bool {
        self.present.get(key) == Some(value)
    }

    pub(crate) fn present(&self) -> &BTreeMap<K, V> {
        &self.present
    }

    pub(crate) fn size(&self) -> (&'static str, usize) {
        (self.name, self.present.len())
    }

    /// What is wrong, in one line.
    pub(crate) fn problem(&self) -> Option<String> {
        let (key, first) = self.failures.first_key_value()?;
        let more =
            if self.failures.len() > 1 { format!(" (and {} more)", self.failures.len() - 1) } else { String::new() };
        Some(format!("{} {key:?}: {}{more}", self.name, first.error))
    }
}

#[cfg(test)]
pub(crate) mod fake;

#[cfg(test)]
mod tests {
    use super::fake::FakeMap;
    use super::*;

    fn driver(map: &FakeMap<u32, u32>) -> MapDriver<u32, u32> {
        let mut driver = MapDriver::new("numbers", Box::new(map.clone()));
        driver.ensure_loaded().unwrap();
        driver
    }

    #[test]
    fn only_what_differs_is_written() {
        let map = FakeMap::with([(1, 10), (2, 20)]);
        let mut driver = driver(&map);
        let wanted = BTreeMap::from([(1, 10), (2, 21), (3, 30)]);
        let changes = driver.put(&wanted, |_| true, Instant::now());
        assert_eq!((changes.written, changes.replaced), (2, vec![(2, 20)]));
        assert_eq!(map.rows(), wanted);
        assert_eq!(map.writes(), 2);
        assert_eq!(driver.put(&wanted, |_| true, Instant::now()).written, 0);
    }

    #[test]
    fn putting_never_deletes_and_pruning_does() {
        let map = FakeMap::with([(1, 10), (2, 20)]);
        let mut driver = driver(&map);
        let wanted = BTreeMap::from([(2, 20)]);
        driver.put(&wanted, |_| true, Instant::now());
        assert_eq!(map.rows().len(), 2);
        let gone = driver.prune(&wanted, |_| true, Instant::now());
        assert_eq!(gone.replaced, [(1, 10)]);
        assert_eq!(map.rows(), wanted);
    }

    #[test]
    fn a_refused_row_waits_and_blocks_none_beside_it() {
        let map = FakeMap::default();
        map.refuse(2);
        let mut driver = driver(&map);
        let wanted = BTreeMap::from([(1, 10), (2, 20), (3, 30)]);
        let start = Instant::now();
        assert_eq!(driver.put(&wanted, |_| true, start).written, 2);
        assert!(driver.problem().unwrap().starts_with("numbers 2: "));
        map.accept(2);
        assert_eq!(driver.put(&wanted, |_| true, start).written, 0, "not before its time");
        let later = driver.retry_at().unwrap();
        assert!(later > start);
        assert_eq!(driver.put(&wanted, |_| true, later).written, 1);
        assert_eq!((driver.problem(), driver.retry_at()), (None, None));
    }

    #[test]
    fn a_reload_finds_what_others_changed() {
        let map = FakeMap::default();
        let mut driver = driver(&map);
        let wanted = BTreeMap::from([(1, 10)]);
        driver.put(&wanted, |_| true, Instant::now());
        map.meddle(1, 99);
        driver.put(&wanted, |_| true, Instant::now());
        assert_eq!(map.rows()[&1], 99);
        driver.reload().unwrap();
        driver.put(&wanted, |_| true, Instant::now());
        assert_eq!(map.rows()[&1], 10);
    }
}
