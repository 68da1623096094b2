//! Numbers with a meaning. Each is checked where it is made, so that code that holds one need not check again.
//!
//! Names (of clusters, nodes, objects) are in [`crate::names`].

use std::fmt;

use serde::{Deserialize, Serialize};

/// A number that its type does not allow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{what} {value} is not in {min}..={max}")]
pub struct OutOfRange {
    /// Which number, as users call it.
    pub what: &'static str,
    /// What was given.
    pub value: i64,
    /// Smallest value allowed.
    pub min: i64,
    /// Largest value allowed.
    pub max: i64,
}

/// A checked integer newtype: constructor, getter, `Display`, `TryFrom`, serde through the check.
macro_rules! number {
    ($(#[$doc:meta])* $name:ident($repr:ident) $what:literal, $min:expr, $max:expr) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "i64", into = "i64")]
        pub struct $name($repr);

        impl $name {
            /// Smallest value.
            pub const MIN: Self = Self($min);
            /// Largest value.
            pub const MAX: Self = Self($max);

            /// Checks the number.
            ///
            /// # Errors
            /// When it is out of range.
            pub fn new(value: impl Into<i64>) -> Result<Self, OutOfRange> {
                let value: i64 = value.into();
                let (min, max) = (i64::from(Self::MIN.0), i64::from(Self::MAX.0));
                match $repr::try_from(value) {
                    Ok(checked) if value >= min && value <= max => Ok(Self(checked)),
                    _ => Err(OutOfRange { what: $what, value, min, max }),
                }
            }

            /// The bare number.
            pub const fn value(self) -> $repr {
                self.0
            }
        }

        impl TryFrom<i64> for $name {
            type Error = OutOfRange;
            fn try_from(value: i64) -> Result<Self, OutOfRange> {
                Self::new(value)
            }
        }

        impl From<$name> for i64 {
            fn from(number: $name) -> i64 {
                i64::from(number.0)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }
    };
}

number! {
    /// Number of a cluster in a mesh of up to 255.
    ClusterId(u16) "cluster id", 1, 255
}

number! {
    /// Virtual network identifier of VXLAN and Geneve, 24 bits: carries the sender's identity.
    Vni(u32) "VNI", 0, 0xff_ffff
}

number! {
    /// Number of an endpoint on its node.
    EndpointId(u16) "endpoint id", 1, u16::MAX
}

number! {
    /// Revision of a store or of a table; rises with every change.
    Revision(i64) "revision", 0, i64::MAX
}

number! {
    /// Index of a network interface.
    IfIndex(u32) "interface index", 1, 0x7fff_ffff
}

number! {
    /// Size of the largest IP packet on a link, bytes. 1280 is what IPv6 needs (RFC 8200 section 5).
    Mtu(u16) "MTU", 1280, u16::MAX
}

impl Revision {
    /// Before the first change.
    pub const ZERO: Self = Self(0);

    /// The one after; stays at the largest.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

/// Which life of a store a revision belongs to; etcd's cluster id. A store restored from elsewhere has another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Generation(u64);

impl Generation {
    /// Any number is one; 0 means "none known".
    pub const fn new(value: u64) -> Self {
        Self(value)
    }

    /// The bare number.
    pub const fn value(self) -> u64 {
        self.0
    }
}

impl fmt::Display for Generation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// Encryption key index of a node or an ipcache entry, as it stands on the wire.
///
/// Source: `wire.md` 2.3: 0 none, 1..15 IPsec, 255 WireGuard. Others are kept and written back as read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct KeyIndex(u8);

impl KeyIndex {
    /// Not encrypted.
    pub const NONE: Self = Self(0);
    /// Encrypted by WireGuard.
    pub const WIREGUARD: Self = Self(255);

    /// Any byte is one.
    pub const fn new(value: u8) -> Self {
        Self(value)
    }

    /// The bare number.
    pub const fn value(self) -> u8 {
        self.0
    }
}

impl fmt::Display for KeyIndex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::NONE => f.write_str("none"),
            Self::WIREGUARD => f.write_str("wireguard"),
            Self(other) => write!(f, "{other}"),
        }
    }
}

/// Security identity: the number that stands for a set of labels.
///
/// Bits 0..16 number within the cluster, 16..24 cluster id, 24..32 scope (0 global, 1 CIDR of one node, 2 remote node of
/// one node; the latter two never leave the node). Source: `wire.md` 3.1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "u32", into = "u32")]
pub struct Identity(u32);

/// Who may know an identity.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum IdentityScope {
    /// Number below 256: the same everywhere, see [`Identity::reserved_name`].
    Reserved,
    /// Allocated by the cluster that the number names.
    Cluster(ClusterId),
    /// Stands for a CIDR rule on one node.
    LocalCidr,
    /// Stands for a remote node on one node.
    LocalRemoteNode,
    /// Neither: cluster id 0 above the reserved numbers.
    None,
}

/// Number and name of each reserved identity. Source: `wire.md` 3.2.
const RESERVED: [(Identity, &str); 11] = [
    (Identity::UNKNOWN, "unknown"),
    (Identity::HOST, "host"),
    (Identity::WORLD, "world"),
    (Identity::UNMANAGED, "unmanaged"),
    (Identity::HEALTH, "health"),
    (Identity::INIT, "init"),
    (Identity::REMOTE_NODE, "remote-node"),
    (Identity::KUBE_APISERVER, "kube-apiserver"),
    (Identity::INGRESS, "ingress"),
    (Identity::WORLD_IPV4, "world-ipv4"),
    (Identity::WORLD_IPV6, "world-ipv6"),
];

impl Identity {
    /// Not known.
    pub const UNKNOWN: Self = Self(0);
    /// The endpoint's own node. Never on the wire.
    pub const HOST: Self = Self(1);
    /// Anything outside the mesh.
    pub const WORLD: Self = Self(2);
    /// A workload that is not managed.
    pub const UNMANAGED: Self = Self(3);
    /// The health endpoint of a node.
    pub const HEALTH: Self = Self(4);
    /// An endpoint whose labels are not yet known.
    pub const INIT: Self = Self(5);
    /// Any other node of the mesh.
    pub const REMOTE_NODE: Self = Self(6);
    /// A node that runs the Kubernetes API.
    pub const KUBE_APISERVER: Self = Self(7);
    /// Ingress proxy of a node.
    pub const INGRESS: Self = Self(8);
    /// [`Self::WORLD`] over IPv4, in dual stack.
    pub const WORLD_IPV4: Self = Self(9);
    /// [`Self::WORLD`] over IPv6, in dual stack.
    pub const WORLD_IPV6: Self = Self(10);

    /// First number that is not reserved; the lowest that a cluster allocates.
    pub const MIN_ALLOCATED: u32 = 256;
    /// Start of the numbers that stand for CIDRs on one node.
    pub const LOCAL_CIDR: u32 = 1 << 24;
    /// Start of the numbers that stand for remote nodes on one node.
    pub const LOCAL_REMOTE_NODE: u32 = 2 << 24;

    /// Checks the number: its scope must be one that exists.
    ///
    /// # Errors
    /// When the number is `3 << 24` or more.
    pub const fn new(value: u32) -> Result<Self, OutOfRange> {
        if value < 3 << 24 {
            return Ok(Self(value));
        }
        Err(OutOfRange { what: "identity", value: value as i64, min: 0, max: (3 << 24) - 1 })
    }

    /// The identity with this number inside a cluster. `within` below 256 is never allocated.
    pub fn of_cluster(cluster: ClusterId, within: u16) -> Self {
        Self(u32::from(cluster.value()) << 16 | u32::from(within))
    }

    /// The node-local identity of the nth CIDR; `None` beyond 24 bits.
    pub const fn local_cidr(n: u32) -> Option<Self> {
        if n < 1 << 24 { Some(Self(Self::LOCAL_CIDR | n)) } else { None }
    }

    /// The bare number.
    pub const fn value(self) -> u32 {
        self.0
    }

    /// Whether it is below 256.
    pub const fn is_reserved(self) -> bool {
        self.0 < Self::MIN_ALLOCATED
    }

    /// Who may know it.
    pub fn scope(self) -> IdentityScope {
        if self.is_reserved() {
            return IdentityScope::Reserved;
        }
        match self.0 >> 24 {
            0 => ClusterId::new(self.0 >> 16).map_or(IdentityScope::None, IdentityScope::Cluster),
            1 => IdentityScope::LocalCidr,
            _ => IdentityScope::LocalRemoteNode,
        }
    }

    /// The cluster that allocated it.
    pub fn cluster(self) -> Option<ClusterId> {
        match self.scope() {
            IdentityScope::Cluster(id) => Some(id),
            IdentityScope::Reserved
            | IdentityScope::LocalCidr
            | IdentityScope::LocalRemoteNode
            | IdentityScope::None => None,
        }
    }

    /// The number that a tunnel header carries; `None` for what never leaves its node.
    ///
    /// Host becomes remote-node, both families of world become world (`wire.md` 8.1).
    pub fn vni(self) -> Option<Vni> {
        let on_wire = match self {
            Self::HOST => Self::REMOTE_NODE,
            Self::WORLD_IPV4 | Self::WORLD_IPV6 => Self::WORLD,
            Self(_) => self,
        };
        Vni::new(on_wire.0).ok()
    }

    /// Name of a reserved identity.
    pub fn reserved_name(self) -> Option<&'static str> {
        RESERVED.iter().find(|(id, _)| *id == self).map(|(_, name)| *name)
    }

    /// The reserved identity of this name.
    pub fn from_reserved_name(name: &str) -> Option<Self> {
        RESERVED.iter().find(|(_, known)| *known == name).map(|(id, _)| *id)
    }
}

impl TryFrom<u32> for Identity {
    type Error = OutOfRange;
    fn try_from(value: u32) -> Result<Self, OutOfRange> {
        Self::new(value)
    }
}

impl From<Identity> for u32 {
    fn from(identity: Identity) -> u32 {
        identity.0
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cluster_id_ends_at_255() {
        assert!(ClusterId::new(0).is_err());
        assert_eq!(ClusterId::new(255).unwrap().value(), 255);
        assert_eq!(ClusterId::new(256).unwrap_err().to_string(), "cluster id 256 is not in 1..=255");
    }

    #[test]
    fn identity_of_cluster_carries_it() {
        let id = Identity::of_cluster(ClusterId::new(2).unwrap(), 257);
        assert_eq!(id.value(), 131_329);
        assert_eq!(id.cluster(), Some(ClusterId::new(2).unwrap()));
        assert_eq!(id.vni().unwrap().value(), 131_329);
    }

    #[test]
    fn scopes() {
        assert_eq!(Identity::new(255).unwrap().scope(), IdentityScope::Reserved);
        assert_eq!(Identity::new(256).unwrap().scope(), IdentityScope::None);
        assert_eq!(Identity::new(0xff_ffff).unwrap().cluster(), ClusterId::new(255).ok());
        assert_eq!(Identity::local_cidr(7).unwrap().scope(), IdentityScope::LocalCidr);
        assert_eq!(Identity::new(2 << 24).unwrap().scope(), IdentityScope::LocalRemoteNode);
        assert!(Identity::new(3 << 24).is_err());
        assert_eq!(Identity::local_cidr(1 << 24), None);
    }

    #[test]
    fn host_and_world_change_on_the_wire() {
        assert_eq!(Identity::HOST.vni().unwrap().value(), 6);
        assert_eq!(Identity::WORLD_IPV6.vni().unwrap().value(), 2);
        assert_eq!(Identity::local_cidr(1).unwrap().vni(), None);
    }

    #[test]
    fn reserved_names_go_both_ways() {
        for (id, name) in RESERVED {
            assert_eq!(id.reserved_name(), Some(name));
            assert_eq!(Identity::from_reserved_name(name), Some(id));
        }
        assert_eq!(Identity::new(131_329).unwrap().reserved_name(), None);
    }

    #[test]
    fn serde_refuses_what_is_out_of_range() {
        assert!(serde_json::from_str::<ClusterId>("0").is_err());
        assert!(serde_json::from_str::<Mtu>("1279").is_err());
        assert_eq!(serde_json::to_string(&Mtu::new(1500).unwrap()).unwrap(), "1500");
        assert!(serde_json::from_str::<Identity>("4294967295").is_err());
        assert!(serde_json::from_str::<Revision>("-1").is_err());
    }
}
