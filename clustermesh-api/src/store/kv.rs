//! Keys, values, ranges and events, as etcd means them.

use bytes::{Bytes, BytesMut};
use clustermesh_api_proto::mvccpb::event::EventType;
use clustermesh_api_proto::{etcdserverpb, mvccpb};

/// A key with its value and history numbers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyValue {
    /// The key.
    pub key: Bytes,
    /// Its value.
    pub value: Bytes,
    /// Revision at which this life of the key began.
    pub create_revision: i64,
    /// Revision of its last change.
    pub mod_revision: i64,
    /// Changes in this life; 1 = just created.
    pub version: i64,
    /// Lease that it hangs on; 0 = none.
    pub lease: i64,
}

impl KeyValue {
    /// The same in memory of its own: what comes off the wire shares one large buffer with its neighbours.
    #[must_use]
    pub fn detached(&self) -> Self {
        let mut buffer = BytesMut::with_capacity(self.key.len() + self.value.len());
        buffer.extend_from_slice(&self.key);
        buffer.extend_from_slice(&self.value);
        let mut key = buffer.freeze();
        let value = key.split_off(self.key.len());
        Self { key, value, ..*self }
    }

    /// Bytes of key and value.
    pub fn size_bytes(&self) -> usize {
        self.key.len() + self.value.len()
    }
}

impl From<mvccpb::KeyValue> for KeyValue {
    fn from(wire: mvccpb::KeyValue) -> Self {
        let mvccpb::KeyValue { key, create_revision, mod_revision, version, value, lease } = wire;
        Self { key, value, create_revision, mod_revision, version, lease }
    }
}

impl From<KeyValue> for mvccpb::KeyValue {
    fn from(kv: KeyValue) -> Self {
        let KeyValue { key, value, create_revision, mod_revision, version, lease } = kv;
        Self { key, create_revision, mod_revision, version, value, lease }
    }
}

/// What every answer of etcd begins with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Header {
    /// etcd's cluster id.
    pub cluster_id: u64,
    /// The member that answered.
    pub member_id: u64,
    /// Revision of the keyspace when it answered.
    pub revision: i64,
    /// Raft term.
    pub raft_term: u64,
}

impl From<etcdserverpb::ResponseHeader> for Header {
    fn from(wire: etcdserverpb::ResponseHeader) -> Self {
        let etcdserverpb::ResponseHeader { cluster_id, member_id, revision, raft_term } = wire;
        Self { cluster_id, member_id, revision, raft_term }
    }
}

impl From<Header> for etcdserverpb::ResponseHeader {
    fn from(header: Header) -> Self {
        let Header { cluster_id, member_id, revision, raft_term } = header;
        Self { cluster_id, member_id, revision, raft_term }
    }
}

/// What happened to a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EventKind {
    /// Created or changed.
    Put,
    /// Deleted.
    Delete,
}

/// One change of one key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// What happened.
    pub kind: EventKind,
    /// The key as it is now; of a deleted one, only key and `mod_revision` (the revision of the deletion).
    pub kv: KeyValue,
    /// As it was before; `None` for a key that was created.
    pub previous: Option<KeyValue>,
}

impl Event {
    /// Reads an event off the wire; `None` for one of an unknown kind or without a key.
    pub fn of_wire(wire: mvccpb::Event) -> Option<Self> {
        let kind = match EventType::try_from(wire.r#type).ok()? {
            EventType::Put => EventKind::Put,
            EventType::Delete => EventKind::Delete,
        };
        Some(Self { kind, kv: wire.kv?.into(), previous: wire.prev_kv.map(KeyValue::from) })
    }

    /// Bytes of keys and values in it.
    pub fn size_bytes(&self) -> usize {
        self.kv.size_bytes() + self.previous.as_ref().map_or(0, KeyValue::size_bytes)
    }

    /// Whether the key was not there before.
    pub fn is_create(&self) -> bool {
        self.kind == EventKind::Put && self.kv.create_revision == self.kv.mod_revision
    }
}

/// A range of keys: one key, a prefix, or from a key to another (excluded) or to the end.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct KeyRange {
    start: Bytes,
    end: End,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum End {
    /// Only the key `start`.
    Single,
    /// Excluded.
    Before(Bytes),
    /// Every key from `start` on.
    Open,
}

impl KeyRange {
    /// One key.
    pub fn key(key: impl Into<Bytes>) -> Self {
        Self { start: key.into(), end: End::Single }
    }

    /// Every key that begins with a prefix; every key at all where it is empty.
    pub fn prefix(prefix: impl Into<Bytes>) -> Self {
        let start: Bytes = prefix.into();
        let mut end = start.to_vec();
        while let Some(last) = end.pop() {
            if let Some(next) = last.checked_add(1) {
                end.push(next);
                return Self { start, end: End::Before(end.into()) };
            }
        }
        Self { start, end: End::Open }
    }

    /// Every key.
    pub fn all() -> Self {
        Self { start: Bytes::new(), end: End::Open }
    }

    /// A range as it stands in etcd's requests: no `range_end` = one key, a zero byte = every key from `key` on.
    pub fn from_wire(key: impl Into<Bytes>, range_end: impl Into<Bytes>) -> Self {
        let range_end: Bytes = range_end.into();
        let end = match &range_end[..] {
            [] => End::Single,
            [0] => End::Open,
            _ => End::Before(range_end),
        };
        Self { start: key.into(), end }
    }

    /// First key that can be in it.
    pub fn start(&self) -> &Bytes {
        &self.start
    }

    /// `key` as it stands in etcd's requests, which has no empty keys.
    pub fn wire_start(&self) -> Bytes {
        if self.start.is_empty() { Bytes::from_static(b"\0") } else { self.start.clone() }
    }

    /// What is left of it after a key.
    #[must_use]
    pub fn after(&self, key: &[u8]) -> Self {
        // The next key in order is the same with a zero byte.
        let start = Bytes::from([key, b"\0"].concat());
        match &self.end {
            End::Single => Self { start: start.clone(), end: End::Before(start) },
            end => Self { start, end: end.clone() },
        }
    }

    /// `range_end` as it stands in etcd's requests.
    pub fn wire_end(&self) -> Bytes {
        match &self.end {
            End::Single => Bytes::new(),
            End::Before(end) => end.clone(),
            End::Open => Bytes::from_static(b"\0"),
        }
    }

    /// Whether it is a single key.
    pub fn is_single(&self) -> bool {
        self.end == End::Single
    }

    /// Whether no key can be in it.
    pub fn is_empty(&self) -> bool {
        matches!(&self.end, End::Before(end) if *end <= self.start)
    }

    /// Whether a key is in it.
    pub fn contains(&self, key: &[u8]) -> bool {
        match &self.end {
            End::Single => key == self.start,
            End::Before(end) => key >= &self.start[..] && key < &end[..],
            End::Open => key >= &self.start[..],
        }
    }

    /// Whether every key of it is in another.
    pub fn within(&self, outer: &Self) -> bool {
        match (&self.end, &outer.end) {
            (End::Single, _) => outer.contains(&self.start),
            (_, End::Single) => self.is_empty(),
            (End::Open, End::Before(_)) => false,
            (_, End::Open) => self.start >= outer.start || self.is_empty(),
            (End::Before(end), End::Before(outer_end)) => {
                self.is_empty() || (self.start >= outer.start && end <= outer_end)
            }
        }
    }

    /// Bounds for an ordered map.
    pub(crate) fn bounds(&self) -> (std::ops::Bound<&[u8]>, std::ops::Bound<&[u8]>) {
        use std::ops::Bound::{Excluded, Included, Unbounded};
        let end = match &self.end {
            End::Single => Included(&self.start[..]),
            End::Before(end) => Excluded(&end[..]),
            End::Open => Unbounded,
        };
        (Included(&self.start[..]), end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_ends_where_its_last_byte_grows() {
        assert_eq!(KeyRange::prefix("a/").wire_end(), "a0");
        assert_eq!(KeyRange::prefix(vec![1, 0xff]).wire_end(), vec![2]);
        assert_eq!(KeyRange::prefix(vec![0xff]).wire_end(), vec![0]);
        assert!(KeyRange::prefix("").contains(b"anything"));
    }

    #[test]
    fn names_that_are_prefixes_of_one_another_do_not_mix() {
        let own = KeyRange::prefix("cilium/synced/a/");
        assert!(own.contains(b"cilium/synced/a/x"));
        assert!(!own.contains(b"cilium/synced/ab/x"));
        assert!(!KeyRange::prefix("cilium/synced/a").within(&own));
    }

    #[test]
    fn within_agrees_with_contains() {
        let keys: [&[u8]; 6] = [b"a", b"a\0", b"a/", b"a/b", b"b", b"\xff\xff"];
        let mut ranges = vec![KeyRange::all()];
        for key in keys {
            ranges.extend([KeyRange::key(key), KeyRange::prefix(key), KeyRange::from_wire(key, &b"\0"[..])]);
            ranges.extend(keys.map(|end| KeyRange::from_wire(key, end)));
        }
        for inner in &ranges {
            for outer in &ranges {
                let within = inner.within(outer);
                let escapes = keys.iter().any(|key| inner.contains(key) && !outer.contains(key));
                assert!(!(within && escapes), "{inner:?} within {outer:?}");
            }
        }
    }
}
