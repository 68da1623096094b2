//! A kernel map in memory, for tests: remembers the order of writes, refuses keys on demand.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use fabric_agent_datapath::{MapError, Rows};

/// What happened to a map, in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Event<K> {
    Put(K),
    Delete(K),
}

#[derive(Debug)]
struct State<K, V> {
    rows: BTreeMap<K, V>,
    refused: BTreeSet<K>,
    events: Vec<Event<K>>,
}

/// The fake; clones share their content.
#[derive(Debug)]
pub(crate) struct FakeMap<K, V>(Arc<Mutex<State<K, V>>>);

impl<K, V> Clone for FakeMap<K, V> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<K: Ord, V> Default for FakeMap<K, V> {
    fn default() -> Self {
        Self::with([])
    }
}

impl<K: Ord, V> FakeMap<K, V> {
    pub(crate) fn with<const N: usize>(rows: [(K, V); N]) -> Self {
        let state = State { rows: rows.into(), refused: BTreeSet::new(), events: Vec::new() };
        Self(Arc::new(Mutex::new(state)))
    }
}

impl<K: Copy + Ord, V: Copy + Eq> FakeMap<K, V> {
    pub(crate) fn rows(&self) -> BTreeMap<K, V> {
        self.0.lock().unwrap().rows.clone()
    }

    pub(crate) fn events(&self) -> Vec<Event<K>> {
        self.0.lock().unwrap().events.clone()
    }

    pub(crate) fn writes(&self) -> usize {
        self.events().iter().filter(|event| matches!(event, Event::Put(_))).count()
    }

    pub(crate) fn refuse(&self, key: K) {
        self.0.lock().unwrap().refused.insert(key);
    }

    pub(crate) fn accept(&self, key: K) {
        self.0.lock().unwrap().refused.remove(&key);
    }

    /// Changes a row behind the driver's back.
    pub(crate) fn meddle(&self, key: K, value: V) {
        self.0.lock().unwrap().rows.insert(key, value);
    }
}

impl<K: Copy + Ord, V: Copy + Eq> Rows for FakeMap<K, V> {
    type Key = K;
    type Value = V;

    fn upsert(&self, key: &K, value: &V) -> Result<(), MapError> {
        let mut state = self.0.lock().unwrap();
        if state.refused.contains(key) {
            return Err(MapError::Full { map: "FAKE", size: 0 });
        }
        state.rows.insert(*key, *value);
        state.events.push(Event::Put(*key));
        Ok(())
    }

    /// All or none, so that a refused row does not count twice.
    fn upsert_all(&self, rows: &[(K, V)]) -> Result<(), MapError> {
        if rows.iter().any(|(key, _)| self.0.lock().unwrap().refused.contains(key)) {
            return Err(MapError::Full { map: "FAKE", size: 0 });
        }
        rows.iter().try_for_each(|(key, value)| self.upsert(key, value))
    }

    fn delete(&self, key: &K) -> Result<bool, MapError> {
        let mut state = self.0.lock().unwrap();
        state.events.push(Event::Delete(*key));
        Ok(state.rows.remove(key).is_some())
    }

    fn get(&self, key: &K) -> Result<Option<V>, MapError> {
        Ok(self.0.lock().unwrap().rows.get(key).copied())
    }

    fn list(&self) -> Result<Vec<(K, V)>, MapError> {
        Ok(self.rows().into_iter().collect())
    }
}
