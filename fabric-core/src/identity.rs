//! Who gets which identity: the numbers of a cluster, the next free one, the key that makes allocation atomic, and the
//! numbers that mean something on one node alone.

mod local;

use std::collections::BTreeSet;

use sha2::{Digest as _, Sha256};

use crate::ids::{ClusterId, Identity};
use crate::labels::LabelSet;

pub use local::LocalIdentities;

/// Reserved identities that another cluster may give an address: those that belong to an endpoint. Never host, world,
/// remote-node or kube-apiserver, which policies trust.
pub const RESERVED_FROM_REMOTE: [Identity; 3] = [Identity::HEALTH, Identity::INIT, Identity::INGRESS];

/// The numbers of one cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IdentityRange {
    cluster: ClusterId,
}

/// All 65 280 are in use or in quarantine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("cluster id {0} has no free identity left")]
pub struct NoIdentityLeft(pub ClusterId);

impl IdentityRange {
    /// The range of a cluster: `id << 16` to `(id + 1) << 16 - 1` (`wire.md` 3.1).
    pub const fn of(cluster: ClusterId) -> Self {
        Self { cluster }
    }

    /// Whether the number is this cluster's.
    pub fn contains(self, identity: Identity) -> bool {
        identity.cluster() == Some(self.cluster)
    }

    /// The lowest that is allocated: 256 within the cluster.
    pub fn first(self) -> Identity {
        Identity::of_cluster(self.cluster, 256)
    }

    /// The highest.
    pub fn last(self) -> Identity {
        Identity::of_cluster(self.cluster, u16::MAX)
    }

    /// The number to try next: the first free one after `after`, going round, so that a number is used again as late as
    /// possible. `taken` holds those in use and those in quarantine.
    ///
    /// # Errors
    /// When none is free.
    pub fn next_candidate(
        self,
        taken: &BTreeSet<Identity>,
        after: Option<Identity>,
    ) -> Result<Identity, NoIdentityLeft> {
        let after = after.filter(|after| self.contains(*after) && *after >= self.first());
        let start = after.map_or(256, |after| (after.value() & 0xffff) + 1);
        (start..=0xffff)
            .chain(256..start)
            .filter_map(|within| u16::try_from(within).ok())
            .map(|within| Identity::of_cluster(self.cluster, within))
            .find(|identity| !taken.contains(identity))
            .ok_or(NoIdentityLeft(self.cluster))
    }
}

/// The key part that stands for a set of labels: 64 hex digits, SHA-256 of its exact wire form. Two agents that ask for
/// the same labels at once meet at this key, and one compare-and-swap decides.
pub fn canonical_key(labels: &LabelSet) -> String {
    crate::key::hex(&Sha256::digest(labels.to_wire()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range() -> IdentityRange {
        IdentityRange::of(ClusterId::new(2).unwrap())
    }

    #[test]
    fn ranges_as_cilium_counts_them() {
        assert_eq!(range().first().value(), 131_072 + 256);
        assert_eq!(range().last().value(), 196_607);
        assert!(range().contains(Identity::new(131_072).unwrap()));
        for other in [0, 7, 300, 131_071, 196_608, 1 << 24] {
            assert!(!range().contains(Identity::new(other).unwrap()), "{other}");
        }
    }

    #[test]
    fn numbers_go_round() {
        let at = |within| Identity::of_cluster(ClusterId::new(2).unwrap(), within);
        let none = BTreeSet::new();
        assert_eq!(range().next_candidate(&none, None).unwrap(), at(256));
        assert_eq!(range().next_candidate(&none, Some(at(256))).unwrap(), at(257));
        assert_eq!(range().next_candidate(&[at(257)].into(), Some(at(256))).unwrap(), at(258));
        assert_eq!(range().next_candidate(&none, Some(at(u16::MAX))).unwrap(), at(256));
        assert_eq!(range().next_candidate(&none, Some(Identity::HOST)).unwrap(), at(256));
        let mut all: BTreeSet<Identity> = (256..=u16::MAX).map(at).collect();
        assert!(range().next_candidate(&all, Some(at(300))).is_err());
        all.remove(&at(300));
        assert_eq!(range().next_candidate(&all, Some(at(300))).unwrap(), at(300));
    }

    #[test]
    fn the_key_depends_on_labels_alone() {
        let a = LabelSet::parse(["k8s:a=1", "k8s:b=2"]).unwrap();
        let b = LabelSet::parse(["k8s:b=2", "k8s:a=1"]).unwrap();
        assert_eq!(canonical_key(&a), canonical_key(&b));
        assert_ne!(canonical_key(&a), canonical_key(&LabelSet::parse(["k8s:a=1"]).unwrap()));
        assert_eq!(canonical_key(&a).len(), 64);
    }
}
