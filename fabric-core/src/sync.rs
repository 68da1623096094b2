//! How an agent keeps in step with its API: positions, the decision to resume, the order of rows, and the check of what
//! arrives. Both ends, no stream.
//!
//! A [`Position`] is a generation (which life of the store) and a revision. [`resume`] is the server's decision,
//! [`Follower`] the client's state: it verifies instead of trusting (revisions only rise, the generation is pinned, a full
//! list ends in a sweep).

mod follower;

use std::cmp::Ordering;

use crate::ids::{Generation, Revision};

pub use follower::{Follower, Message, ProtocolError, Step};

/// How far a reader has got.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Position {
    /// Which life of the store.
    pub generation: Generation,
    /// How far in it.
    pub revision: Revision,
}

impl Position {
    /// Of a reader that knows nothing.
    pub const NONE: Self = Self { generation: Generation::new(0), revision: Revision::ZERO };
}

/// What a server keeps to answer from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kept {
    /// Now.
    pub now: Position,
    /// The log holds every change after this revision.
    pub log_after: Revision,
}

/// How to bring a reader up to date.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Resume {
    /// It is: send what comes.
    UpToDate,
    /// Send the changes after this revision.
    After(Revision),
    /// Send everything.
    FullList(WhyFull),
}

/// Why a full list is needed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum WhyFull {
    /// The reader knows nothing.
    FirstContact,
    /// The reader knows another life of the store.
    OtherGeneration,
    /// The reader is ahead: the store went back.
    StoreWentBack,
    /// The log does not reach back so far.
    LogTooShort,
}

/// Decides how a reader is brought up to date.
pub fn resume(reader: Position, kept: Kept) -> Resume {
    if reader == Position::NONE {
        return Resume::FullList(WhyFull::FirstContact);
    }
    if reader.generation != kept.now.generation {
        return Resume::FullList(WhyFull::OtherGeneration);
    }
    match reader.revision.cmp(&kept.now.revision) {
        Ordering::Greater => Resume::FullList(WhyFull::StoreWentBack),
        Ordering::Equal => Resume::UpToDate,
        Ordering::Less if reader.revision >= kept.log_after => Resume::After(reader.revision),
        Ordering::Less => Resume::FullList(WhyFull::LogTooShort),
    }
}

/// What a row is about, in the order in which an agent must learn of them: what others refer to comes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RowKind {
    /// Clusters: prefixes decide encryption and drops.
    Cluster,
    /// Identities, before the addresses that have them.
    Identity,
    /// Nodes, before the addresses behind them.
    Node,
    /// Addresses.
    Ip,
    /// Services.
    Service,
    /// Policies.
    Policy,
}

/// Puts the changes of one batch into the order in which they are safe to apply one by one:
/// cluster puts first (a block must stand before what it covers goes), then deletes from services back to identities,
/// then puts from identities to policies, then policy deletes (never a moment without either policy), clusters last.
pub fn order<T>(changes: &mut [T], kind: impl Fn(&T) -> RowKind, is_delete: impl Fn(&T) -> bool) {
    changes.sort_by_key(|change| rank(kind(change), is_delete(change)));
}

const fn rank(kind: RowKind, is_delete: bool) -> u8 {
    match (kind, is_delete) {
        (RowKind::Cluster, false) => 0,
        (RowKind::Service, true) => 1,
        (RowKind::Ip, true) => 2,
        (RowKind::Node, true) => 3,
        (RowKind::Identity, true) => 4,
        (RowKind::Identity, false) => 5,
        (RowKind::Node, false) => 6,
        (RowKind::Ip, false) => 7,
        (RowKind::Service, false) => 8,
        (RowKind::Policy, false) => 9,
        (RowKind::Policy, true) => 10,
        (RowKind::Cluster, true) => 11,
    }
}

#[cfg(test)]
mod tests;
