//! Sorted rows in shared chunks: a copy shares everything, and a write after a copy copies one chunk and the list of
//! chunks, not the rows.

use std::ops::{Bound, RangeBounds};
use std::sync::Arc;

use super::{Entry, Row, Status};

/// Largest chunk; one that grows over it is cut in two.
const CHUNK: usize = 256;

/// Chunks in order, none empty; keys in order within and across them.
pub(super) struct Rows<R: Row> {
    chunks: Vec<Arc<Vec<Slot<R>>>>,
    len: usize,
}

type Slot<R> = (<R as Row>::Key, Arc<Entry<R>>);

impl<R: Row> Default for Rows<R> {
    fn default() -> Self {
        Self { chunks: Vec::new(), len: 0 }
    }
}

impl<R: Row> Clone for Rows<R> {
    fn clone(&self) -> Self {
        Self { chunks: self.chunks.clone(), len: self.len }
    }
}

impl<R: Row> Rows<R> {
    pub(super) const fn len(&self) -> usize {
        self.len
    }

    /// The chunk that holds the key if any does: the last whose first key is not greater.
    fn chunk_of(&self, key: &R::Key) -> usize {
        let after = self.chunks.partition_point(|chunk| chunk.first().is_some_and(|(first, _)| first <= key));
        after.saturating_sub(1)
    }

    pub(super) fn get(&self, key: &R::Key) -> Option<&Entry<R>> {
        let chunk = self.chunks.get(self.chunk_of(key))?;
        let at = chunk.binary_search_by(|(slot, _)| slot.cmp(key)).ok()?;
        chunk.get(at).map(|(_, entry)| &**entry)
    }

    pub(super) fn insert(&mut self, key: R::Key, entry: Entry<R>) {
        let index = self.chunk_of(&key);
        let entry = Arc::new(entry);
        let Some(chunk) = self.chunks.get_mut(index) else {
            self.chunks.push(Arc::new(vec![(key, entry)]));
            self.len = 1;
            return;
        };
        let chunk = Arc::make_mut(chunk);
        match chunk.binary_search_by(|(slot, _)| slot.cmp(&key)) {
            Ok(at) => {
                if let Some(slot) = chunk.get_mut(at) {
                    slot.1 = entry;
                }
            }
            Err(at) => {
                chunk.insert(at, (key, entry));
                self.len += 1;
            }
        }
        if chunk.len() > CHUNK {
            let upper = chunk.split_off(CHUNK / 2);
            self.chunks.insert(index + 1, Arc::new(upper));
        }
    }

    pub(super) fn remove(&mut self, key: &R::Key) -> Option<Arc<Entry<R>>> {
        let index = self.chunk_of(key);
        let chunk = self.chunks.get_mut(index)?;
        let at = chunk.binary_search_by(|(slot, _)| slot.cmp(key)).ok()?;
        let chunk = Arc::make_mut(chunk);
        let (_, entry) = chunk.remove(at);
        if chunk.is_empty() {
            self.chunks.remove(index);
        }
        self.len -= 1;
        Some(entry)
    }

    /// Sets the status of a row that still has this revision.
    pub(super) fn set_status(&mut self, key: &R::Key, revision: crate::ids::Revision, status: Status) -> bool {
        if self.get(key).is_none_or(|entry| entry.revision != revision || entry.status == status) {
            return false;
        }
        let index = self.chunk_of(key);
        let Some(chunk) = self.chunks.get_mut(index).map(Arc::make_mut) else {
            return false;
        };
        let at = chunk.binary_search_by(|(slot, _)| slot.cmp(key));
        let Some((_, entry)) = at.ok().and_then(|at| chunk.get_mut(at)) else {
            return false;
        };
        Arc::make_mut(entry).status = status;
        true
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&R::Key, &Entry<R>)> {
        self.chunks.iter().flat_map(|chunk| chunk.iter()).map(|(key, entry)| (key, &**entry))
    }

    pub(super) fn range(&self, range: impl RangeBounds<R::Key>) -> impl Iterator<Item = (&R::Key, &Entry<R>)> {
        let start = match range.start_bound() {
            Bound::Included(key) | Bound::Excluded(key) => self.chunk_of(key),
            Bound::Unbounded => 0,
        };
        let before_start = |key: &R::Key, start: Bound<&R::Key>| match start {
            Bound::Included(start) => key < start,
            Bound::Excluded(start) => key <= start,
            Bound::Unbounded => false,
        };
        let bounds = (range.start_bound().cloned(), range.end_bound().cloned());
        let end = bounds.1.clone();
        self.chunks
            .iter()
            .skip(start)
            .flat_map(|chunk| chunk.iter())
            .skip_while(move |(key, _)| before_start(key, bounds.0.as_ref()))
            .take_while(move |(key, _)| match end.as_ref() {
                Bound::Included(end) => key <= end,
                Bound::Excluded(end) => key < end,
                Bound::Unbounded => true,
            })
            .map(|(key, entry)| (key, &**entry))
    }
}
