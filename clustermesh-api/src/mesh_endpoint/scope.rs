//! Who sees what.
//!
//! As etcd's `remote` role in a Cilium cluster: the heartbeat, the state, our own cluster's configuration and canaries.
//! Everything else, private keys above all, does not exist here.

use fabric_core::names::ClusterName;
use fabric_core::wire::key::{CLUSTER_CONFIG_PREFIX, HEARTBEAT, STATE_PREFIX, SYNCED_PREFIX};

use crate::pki::Role;
use crate::store::KeyRange;
use crate::tls::{AuthorityOf, Grant, PeerIdentity};

/// The ranges that exist for a client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Scope {
    granted: Vec<KeyRange>,
}

impl Scope {
    /// What is meant for every remote cluster.
    pub(super) fn remote(own: &ClusterName) -> Self {
        Self {
            granted: vec![
                // Readers ask for it as a prefix; the slash-less name is the only key there is under it.
                KeyRange::prefix(HEARTBEAT),
                KeyRange::prefix(STATE_PREFIX),
                KeyRange::key(format!("{CLUSTER_CONFIG_PREFIX}{own}")),
                // The slash matters: cluster "a" must not see what is of "ab".
                KeyRange::prefix(format!("{SYNCED_PREFIX}{own}/")),
            ],
        }
    }

    /// Whether a client may ask for a range: all of it must be granted, as etcd has it.
    pub(super) fn permits(&self, range: &KeyRange) -> bool {
        self.granted.iter().any(|granted| range.within(granted))
    }

    /// Whether a key exists for the client: a second look at everything that goes out.
    pub(super) fn shows(&self, key: &[u8]) -> bool {
        self.granted.iter().any(|granted| granted.contains(key))
    }
}

/// Whether the holder of a certificate may read at all.
///
/// `grant`: what the link to the peer's cluster says now.
pub(super) fn may_read(peer: &PeerIdentity, grant: impl Fn(&ClusterName) -> Grant) -> bool {
    let role = peer.name.as_ref().map(|name| &name.role);
    match &peer.authority {
        AuthorityOf::Own => matches!(role, Some(Role::Api | Role::Admin(_) | Role::Remote(_))),
        AuthorityOf::Peer(cluster) => {
            let reader = match role {
                Some(Role::Api | Role::Remote(_)) => true,
                Some(Role::Node(_) | Role::Machine(_) | Role::Admin(_)) => false,
                // A Cilium cluster's: etcd's user `remote`, or `remote-<cluster>`.
                None => peer.common_name == "remote" || peer.common_name.starts_with("remote-"),
            };
            reader && grant(cluster) == Grant::Read
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::pki::{PeerName, Pin};

    fn cluster(name: &str) -> ClusterName {
        ClusterName::new(name).unwrap()
    }

    const HIDDEN: [&str; 12] = [
        "fabric/tokens/1",
        "fabric/links/us",
        "cilium/cache/ip/v1/us/10.0.0.1",
        "cilium/cluster-config/us",
        "cilium/cluster-config/a/",
        "cilium/cluster-config/ab",
        "cilium/cluster-config/",
        "cilium/synced/ab/cilium/state/nodes/v1",
        "cilium/synced/a",
        "cilium/state",
        "cilium/statf",
        "a",
    ];

    #[test]
    fn only_what_is_meant_for_remotes_exists() {
        let scope = Scope::remote(&cluster("a"));
        for key in [
            "cilium/.heartbeat",
            "cilium/state/nodes/v1/a/n1",
            "cilium/state/fabric/x/v1",
            "cilium/cluster-config/a",
            "cilium/synced/a/cilium/state/nodes/v1",
        ] {
            assert!(scope.shows(key.as_bytes()) && scope.permits(&KeyRange::key(key)), "{key}");
        }
        for key in HIDDEN {
            assert!(!scope.shows(key.as_bytes()) && !scope.permits(&KeyRange::key(key)), "{key}");
        }
        assert!(!scope.permits(&KeyRange::all()));
        assert!(!scope.permits(&KeyRange::from_wire(&b"cilium/state/"[..], &b"\0"[..])));
        assert!(!scope.permits(&KeyRange::prefix("cilium/")));
        assert!(!scope.permits(&KeyRange::prefix("cilium/cluster-config/a")));
    }

    proptest! {
        #[test]
        fn no_permitted_range_holds_a_hidden_key(
            start in "(cilium/(state|synced/a|cluster-config/a|\\.heartbeat)?/?)?[a-b/]{0,3}",
            end in "(cilium/(state|synced/a|statf|cluster-config/a|\\.heartbeat)?/?)?[a-b0/]{0,3}|\\x00",
        ) {
            let scope = Scope::remote(&cluster("a"));
            let range = KeyRange::from_wire(start.into_bytes(), end.into_bytes());
            if scope.permits(&range) {
                for key in HIDDEN {
                    prop_assert!(!range.contains(key.as_bytes()), "{range:?} {key}");
                }
            }
        }
    }

    #[test]
    fn readers_are_apis_and_remotes_not_nodes() {
        let name = |cluster_name, role| Some(PeerName::new(&cluster(cluster_name), role));
        let node = || Role::Node("n1".parse().unwrap());
        let peer = || AuthorityOf::Peer(cluster("us"));
        let admin = || Role::Admin("root".to_owned());
        let cases = [
            (AuthorityOf::Own, name("eu", admin()), "admin-eu", Grant::None, true),
            (AuthorityOf::Own, name("eu", Role::Remote("remote".to_owned())), "remote", Grant::None, true),
            (AuthorityOf::Own, name("eu", node()), "n1", Grant::Read, false),
            (AuthorityOf::Own, None, "remote", Grant::Read, false),
            (peer(), name("us", Role::Api), "remote-us", Grant::Read, true),
            (peer(), name("us", Role::Api), "remote-us", Grant::None, false),
            (peer(), name("us", node()), "n1", Grant::Read, false),
            (peer(), name("us", admin()), "admin-us", Grant::Read, false),
            (peer(), None, "remote", Grant::Read, true),
            (peer(), None, "remote-us", Grant::Read, true),
            (peer(), None, "root", Grant::Read, false),
        ];
        for (authority, name, common_name, grant, wanted) in cases {
            let key = Pin::from([0; 32]);
            let identity = PeerIdentity { authority, name, common_name: common_name.to_owned(), key };
            assert_eq!(may_read(&identity, |_| grant), wanted, "{identity:?}");
        }
    }
}
