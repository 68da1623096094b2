//! Transactions: a few conditions, a few writes, all or none.

use bytes::Bytes;
use clustermesh_api_proto::etcdserverpb as pb;
use clustermesh_api_proto::etcdserverpb::compare::{CompareResult, CompareTarget, TargetUnion};
use clustermesh_api_proto::etcdserverpb::request_op::Request;
use clustermesh_api_proto::etcdserverpb::response_op::Response;

use super::kv::{KeyRange, KeyValue};

/// What a transaction checks and does. All conditions must hold, then all writes happen at one revision.
#[derive(Debug, Clone, Default)]
pub struct Transaction {
    pub(crate) conditions: Vec<Condition>,
    pub(crate) writes: Vec<Write>,
}

#[derive(Debug, Clone)]
pub(crate) enum Condition {
    Absent(Bytes),
    ModRevision(Bytes, i64),
    Present(Bytes),
}

#[derive(Debug, Clone)]
pub(crate) enum Write {
    Put { key: Bytes, value: Bytes, lease: i64 },
    Delete(KeyRange),
}

/// How a transaction ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// Everything was written at this revision.
    Done {
        /// The store's revision afterwards.
        revision: i64,
    },
    /// A condition did not hold; nothing was written. The keys of the conditions as they are now, in their order,
    /// `None` for those that are not there.
    Conflict {
        /// What stands under each condition's key.
        found: Vec<Option<KeyValue>>,
        /// The store's revision.
        revision: i64,
    },
}

impl Outcome {
    /// The revision if it was done.
    pub fn done(&self) -> Option<i64> {
        match self {
            Self::Done { revision } => Some(*revision),
            Self::Conflict { .. } => None,
        }
    }
}

impl Transaction {
    /// An empty one: it always succeeds and does nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// Demands that a key is not there.
    #[must_use]
    pub fn absent(mut self, key: impl Into<Bytes>) -> Self {
        self.conditions.push(Condition::Absent(key.into()));
        self
    }

    /// Demands that a key was last changed at this revision.
    #[must_use]
    pub fn unchanged(mut self, key: impl Into<Bytes>, mod_revision: i64) -> Self {
        self.conditions.push(Condition::ModRevision(key.into(), mod_revision));
        self
    }

    /// Demands that a key is there.
    #[must_use]
    pub fn present(mut self, key: impl Into<Bytes>) -> Self {
        self.conditions.push(Condition::Present(key.into()));
        self
    }

    /// Writes a key.
    #[must_use]
    pub fn put(mut self, key: impl Into<Bytes>, value: impl Into<Bytes>) -> Self {
        self.writes.push(Write::Put { key: key.into(), value: value.into(), lease: 0 });
        self
    }

    /// Writes a key that goes when its lease ends.
    #[must_use]
    pub fn put_leased(mut self, key: impl Into<Bytes>, value: impl Into<Bytes>, lease: i64) -> Self {
        self.writes.push(Write::Put { key: key.into(), value: value.into(), lease });
        self
    }

    /// Deletes a key; one that is not there does no harm.
    #[must_use]
    pub fn delete(mut self, key: impl Into<Bytes>) -> Self {
        self.writes.push(Write::Delete(KeyRange::key(key)));
        self
    }

    /// Deletes every key of a range.
    #[must_use]
    pub fn delete_range(mut self, range: KeyRange) -> Self {
        self.writes.push(Write::Delete(range));
        self
    }

    /// How many writes it has. etcd takes no more than [`Transaction::MAX_WRITES`] in one.
    pub fn len(&self) -> usize {
        self.writes.len()
    }

    /// Whether it writes nothing.
    pub fn is_empty(&self) -> bool {
        self.writes.is_empty()
    }

    /// etcd's own default limit, which a user's etcd has too.
    pub const MAX_WRITES: usize = 128;

    /// As etcd takes it: where a condition fails, every condition's key is read.
    pub(super) fn into_wire(self) -> pb::TxnRequest {
        let failure = self.conditions.iter().map(|condition| {
            let read = pb::RangeRequest { key: condition.key().clone(), ..pb::RangeRequest::default() };
            pb::RequestOp { request: Some(Request::RequestRange(read)) }
        });
        pb::TxnRequest {
            failure: failure.collect(),
            compare: self.conditions.into_iter().map(Condition::into_wire).collect(),
            success: self.writes.into_iter().map(Write::into_wire).collect(),
        }
    }
}

impl Condition {
    fn key(&self) -> &Bytes {
        match self {
            Self::Absent(key) | Self::Present(key) | Self::ModRevision(key, _) => key,
        }
    }

    fn into_wire(self) -> pb::Compare {
        // A key that is not there has version 0.
        let (result, target, key, union) = match self {
            Self::Absent(key) => (CompareResult::Equal, CompareTarget::Version, key, TargetUnion::Version(0)),
            Self::Present(key) => (CompareResult::Greater, CompareTarget::Version, key, TargetUnion::Version(0)),
            Self::ModRevision(key, revision) => {
                (CompareResult::Equal, CompareTarget::Mod, key, TargetUnion::ModRevision(revision))
            }
        };
        pb::Compare {
            result: result.into(),
            target: target.into(),
            key,
            target_union: Some(union),
            range_end: Bytes::new(),
        }
    }
}

impl Write {
    fn into_wire(self) -> pb::RequestOp {
        let request = match self {
            Self::Put { key, value, lease } => {
                Request::RequestPut(pb::PutRequest { key, value, lease, ..pb::PutRequest::default() })
            }
            Self::Delete(range) => Request::RequestDeleteRange(pb::DeleteRangeRequest {
                key: range.wire_start(),
                range_end: range.wire_end(),
                prev_kv: false,
            }),
        };
        pb::RequestOp { request: Some(request) }
    }
}

impl Outcome {
    pub(super) fn of_wire(succeeded: bool, responses: Vec<pb::ResponseOp>, revision: i64) -> Self {
        if succeeded {
            return Self::Done { revision };
        }
        let found = responses.into_iter().map(|response| match response.response {
            Some(Response::ResponseRange(range)) => range.kvs.into_iter().next().map(KeyValue::from),
            _ => None,
        });
        Self::Conflict { found: found.collect(), revision }
    }
}
