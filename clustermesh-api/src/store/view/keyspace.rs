//! Every key with its recent past, and the log of changes; no I/O, no clock.
//!
//! A key keeps its superseded values as long as the log keeps the change that superseded them, so a read pinned to any
//! revision from `oldest` on sees exactly what etcd had. What the log forgets is forgotten by the keys in the same step.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use bytes::Bytes;

use super::{Batch, Position};
use crate::store::kv::{Event, EventKind, Header, KeyRange, KeyValue};

/// How much history is kept.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    pub(crate) events: usize,
    pub(crate) bytes: usize,
}

/// The keyspace at `header.revision`, with history back to `oldest`.
#[derive(Debug)]
pub(crate) struct Keyspace {
    limits: Limits,
    generation: u64,
    header: Header,
    oldest: i64,
    keys: BTreeMap<Bytes, Entry>,
    log: VecDeque<Arc<Batch>>,
    log_events: usize,
    log_bytes: usize,
}

/// One key: its newest state, and those before it, oldest first.
#[derive(Debug)]
struct Entry {
    current: State,
    past: Vec<State>,
}

#[derive(Debug)]
enum State {
    Live(KeyValue),
    /// Deleted at this revision.
    Dead(i64),
}

/// A change that does not follow from what is known: something was missed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("change of revision {revision} does not follow what is known: {detail}")]
pub(crate) struct Gap {
    pub(crate) revision: i64,
    pub(crate) detail: &'static str,
}

/// Why a pinned read cannot be served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unreadable {
    /// Older than the history that is kept.
    Compacted,
    /// Not there yet.
    Future,
}

/// What follows a position.
#[derive(Debug)]
pub(crate) enum Next {
    /// These, in order.
    Batches(Vec<Arc<Batch>>),
    /// Nothing yet.
    UpToDate,
    /// The log does not reach back that far; it does from this revision on.
    Forgotten { first: i64 },
}

impl State {
    fn revision(&self) -> i64 {
        match self {
            Self::Live(kv) => kv.mod_revision,
            Self::Dead(revision) => *revision,
        }
    }

    fn live(&self) -> Option<&KeyValue> {
        match self {
            Self::Live(kv) => Some(kv),
            Self::Dead(_) => None,
        }
    }
}

impl Entry {
    fn at(&self, revision: i64) -> Option<&KeyValue> {
        if self.current.revision() <= revision {
            return self.current.live();
        }
        self.past.iter().rev().find(|state| state.revision() <= revision).and_then(State::live)
    }

    /// Forgets what no read at `oldest` or later can see. `false`: nothing is left.
    fn forget(&mut self, oldest: i64) -> bool {
        if self.current.revision() <= oldest {
            self.past = Vec::new();
            return self.current.live().is_some();
        }
        // Of the states at or before `oldest` only the last can be seen.
        let seen = self.past.iter().rposition(|state| state.revision() <= oldest).unwrap_or(0);
        self.past.drain(..seen);
        true
    }
}

impl Keyspace {
    pub(crate) fn new(limits: Limits) -> Self {
        Self {
            limits,
            generation: 0,
            header: Header::default(),
            oldest: 0,
            keys: BTreeMap::new(),
            log: VecDeque::new(),
            log_events: 0,
            log_bytes: 0,
        }
    }

    /// Takes a complete list of the store at `header.revision` for what there is: marks what it names, sweeps the rest.
    /// History begins anew. Returns how many keys were put and swept.
    pub(crate) fn replace(&mut self, generation: u64, header: Header, list: Vec<KeyValue>) -> (usize, usize) {
        let mut known = std::mem::take(&mut self.keys);
        let before = known.values().filter(|entry| entry.current.live().is_some()).count();
        let mut kept = 0;
        let total = list.len();
        for kv in list {
            // Memory of a key that did not change stays where it is.
            let same = known.remove(&kv.key[..]).and_then(|entry| match entry.current {
                State::Live(known) if known == kv => Some(known),
                _ => None,
            });
            kept += usize::from(same.is_some());
            let kv = same.unwrap_or_else(|| kv.detached());
            self.keys.insert(kv.key.clone(), Entry { current: State::Live(kv), past: Vec::new() });
        }
        self.generation = generation;
        self.header = header;
        self.oldest = header.revision;
        self.log = VecDeque::new();
        (self.log_events, self.log_bytes) = (0, 0);
        (total - kept, before.saturating_sub(kept))
    }

    /// Applies all changes of one revision.
    ///
    /// # Errors
    /// When they do not follow from what is known; the keyspace must be listed again then.
    pub(crate) fn apply(&mut self, header: Header, events: Vec<Event>) -> Result<(), Gap> {
        let revision = events.first().map_or(0, |event| event.kv.mod_revision);
        if revision <= self.header.revision {
            return Err(Gap { revision, detail: "revision is not newer" });
        }
        let mut batch = Vec::with_capacity(events.len());
        for event in events {
            batch.push(self.apply_one(&event)?);
        }
        self.log_events += batch.len();
        self.log_bytes += batch.iter().map(Event::size_bytes).sum::<usize>();
        self.log.push_back(Arc::new(Batch { revision, events: batch }));
        self.header = Header { revision, ..header };
        self.trim();
        Ok(())
    }

    fn apply_one(&mut self, event: &Event) -> Result<Event, Gap> {
        let revision = event.kv.mod_revision;
        let gap = |detail| Gap { revision, detail };
        let entry = self.keys.get_mut(&event.kv.key[..]);
        let previous = entry.as_ref().and_then(|entry| entry.current.live()).cloned();
        let follows = match (&previous, event.kind) {
            (None, EventKind::Put) => event.is_create() && event.kv.version == 1,
            (Some(before), EventKind::Put) => {
                event.kv.create_revision == before.create_revision && event.kv.version == before.version + 1
            }
            (before, EventKind::Delete) => before.is_some(),
        };
        if !follows {
            return Err(gap("the key's version is not the next"));
        }
        let kv = event.kv.detached();
        let state = match event.kind {
            EventKind::Put => State::Live(kv.clone()),
            EventKind::Delete => State::Dead(revision),
        };
        match entry {
            Some(entry) => entry.past.push(std::mem::replace(&mut entry.current, state)),
            None => {
                self.keys.insert(kv.key.clone(), Entry { current: state, past: Vec::new() });
            }
        }
        Ok(Event { kind: event.kind, kv, previous })
    }

    fn trim(&mut self) {
        while self.log_events > self.limits.events || self.log_bytes > self.limits.bytes {
            // The newest change is always there: a reader that is up to date never falls off.
            if self.log.len() <= 1 {
                return;
            }
            let Some(batch) = self.log.pop_front() else { return };
            self.oldest = batch.revision;
            self.log_events -= batch.events.len();
            self.log_bytes -= batch.events.iter().map(Event::size_bytes).sum::<usize>();
            for event in &batch.events {
                let key = &event.kv.key[..];
                if self.keys.get_mut(key).is_some_and(|entry| !entry.forget(batch.revision)) {
                    self.keys.remove(key);
                }
            }
        }
    }

    /// Takes note of the member and term that answer now; the revision is not touched.
    pub(crate) fn answered_by(&mut self, header: Header) {
        self.header = Header { revision: self.header.revision, ..header };
    }

    pub(crate) fn header(&self) -> Header {
        self.header
    }

    pub(crate) fn generation(&self) -> u64 {
        self.generation
    }

    /// Oldest revision that can be read.
    pub(crate) fn oldest(&self) -> i64 {
        self.oldest
    }

    pub(crate) fn position(&self) -> Position {
        Position { generation: self.generation, revision: self.header.revision }
    }

    pub(crate) fn get(&self, key: &[u8]) -> Option<&KeyValue> {
        self.keys.get(key).and_then(|entry| entry.current.live())
    }

    /// A revision as a reader asks for it (0 or less = the newest), if it can be read.
    pub(crate) fn readable(&self, revision: i64) -> Result<i64, Unreadable> {
        match revision {
            ..=0 => Ok(self.header.revision),
            _ if revision > self.header.revision => Err(Unreadable::Future),
            _ if revision < self.oldest => Err(Unreadable::Compacted),
            _ => Ok(revision),
        }
    }

    /// Keys of a range as they were at a readable revision, in key order.
    pub(crate) fn range(&self, range: &KeyRange, revision: i64) -> impl Iterator<Item = &KeyValue> {
        let keys = (!range.is_empty()).then(|| self.keys.range::<[u8], _>(range.bounds()));
        keys.into_iter().flatten().filter_map(move |(_, entry)| entry.at(revision))
    }

    /// Changes of revisions from `first` on, at most about `events` of them.
    pub(crate) fn since(&self, first: i64, events: usize) -> Next {
        // Revision 1 is the empty store: nothing happened at it.
        if first <= self.oldest && self.oldest > 1 {
            return Next::Forgotten { first: self.oldest + 1 };
        }
        let start = self.log.partition_point(|batch| batch.revision < first);
        let mut batches = Vec::new();
        let mut count = 0;
        for batch in self.log.range(start..) {
            if count >= events {
                break;
            }
            count += batch.events.len();
            batches.push(Arc::clone(batch));
        }
        if batches.is_empty() { Next::UpToDate } else { Next::Batches(batches) }
    }

    /// The newest change in the log that put something: what the store must still have at that revision if it is the
    /// same store.
    pub(crate) fn newest_put(&self) -> Option<&KeyValue> {
        let mut events = self.log.iter().rev().flat_map(|batch| &batch.events);
        events.find(|event| event.kind == EventKind::Put).map(|event| &event.kv)
    }

    /// How many keys there are.
    pub(crate) fn len(&self) -> usize {
        self.keys.values().filter(|entry| entry.current.live().is_some()).count()
    }
}

#[cfg(test)]
mod tests;
