//! Keys: which object a key in etcd names.

use std::fmt;
use std::net::IpAddr;

use crate::ids::Identity;
use crate::names::{ClusterName, Namespace, NodeName, ObjectName};
use crate::prefix::Prefix;

/// Where a cluster's configurations stand.
pub const CLUSTER_CONFIG_PREFIX: &str = "cilium/cluster-config/";
/// Where canaries stand.
pub const SYNCED_PREFIX: &str = "cilium/synced/";
/// Everything that a cluster says of itself.
pub const STATE_PREFIX: &str = "cilium/state/";
/// Everything that it copied from others.
pub const CACHE_PREFIX: &str = "cilium/cache/";
/// Touched every minute by the cluster's API.
pub const HEARTBEAT: &str = "cilium/.heartbeat";
/// Longest key read, bytes.
pub const MAX_KEY_BYTES: usize = 1024;

/// Who wrote the key: the cluster itself, or a mirror of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Form {
    /// `cilium/state/…`, by the cluster itself.
    State,
    /// `cilium/cache/…`, by a mirror.
    Cache,
}

/// The families of rows that we read and write, in the order in which they are to be applied.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// Label sets by number.
    Identities,
    /// Nodes by name.
    Nodes,
    /// Address prefixes.
    Ip,
    /// Shared services.
    Services,
}

/// A key, understood.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Key {
    /// What a cluster is.
    ClusterConfig(ClusterName),
    /// The store is alive.
    Heartbeat,
    /// A family of the cluster is complete.
    Synced {
        /// Of which cluster.
        cluster: ClusterName,
        /// In which form its rows are.
        form: Form,
        /// Which family.
        kind: Kind,
    },
    /// An object of a cluster.
    Row {
        /// Who wrote it.
        form: Form,
        /// Of which cluster.
        cluster: ClusterName,
        /// Which object.
        row: RowKey,
    },
}

/// The object that a row's key names, within its cluster.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RowKey {
    /// A label set.
    Identity(Identity),
    /// A node.
    Node(NodeName),
    /// An ipcache entry.
    Ip(Prefix),
    /// A service.
    Service {
        /// Its namespace.
        namespace: Namespace,
        /// Its name.
        name: ObjectName,
    },
}

/// A key that names nothing known.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// Not of a family that we read: to be ignored, not refused.
    #[error("key is of no known family")]
    UnknownFamily,
    /// Over [`MAX_KEY_BYTES`].
    #[error("key of {0} bytes, at most {MAX_KEY_BYTES} are allowed")]
    TooLong(usize),
    /// Of a family that we read, but not as its keys are.
    #[error("key {key:?}: {reason}")]
    Malformed {
        /// The key, cut to a readable length.
        key: String,
        /// What is wrong.
        reason: &'static str,
    },
}

impl Form {
    const ALL: [Self; 2] = [Self::State, Self::Cache];

    const fn prefix(self) -> &'static str {
        match self {
            Self::State => STATE_PREFIX,
            Self::Cache => CACHE_PREFIX,
        }
    }
}

impl Kind {
    /// All of them, in the order in which they are to be applied.
    pub const ALL: [Self; 4] = [Self::Identities, Self::Nodes, Self::Ip, Self::Services];

    /// As spelt on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Identities => "identities",
            Self::Nodes => "nodes",
            Self::Ip => "ip",
            Self::Services => "services",
        }
    }

    /// `cilium/state/nodes/v1`: what a canary's key ends with.
    pub fn base(self, form: Form) -> String {
        format!("{}{}/v1", form.prefix(), self.as_str())
    }

    /// The prefix under which a cluster's rows of this family stand, with the last slash: cluster `a` never matches `ab`.
    pub fn rows_prefix(self, form: Form, cluster: &ClusterName) -> String {
        let base = self.base(form);
        match (self, form) {
            (Self::Identities, Form::State) => format!("{base}/id/"),
            (Self::Identities, Form::Cache) => format!("{base}/{cluster}/id/"),
            (Self::Ip, Form::State) => format!("{base}/default/"),
            (Self::Nodes | Self::Services, Form::State) | (Self::Nodes | Self::Ip | Self::Services, Form::Cache) => {
                format!("{base}/{cluster}/")
            }
        }
    }
}

impl RowKey {
    /// Which family it is of.
    pub const fn kind(&self) -> Kind {
        match self {
            Self::Identity(_) => Kind::Identities,
            Self::Node(_) => Kind::Nodes,
            Self::Ip(_) => Kind::Ip,
            Self::Service { .. } => Kind::Services,
        }
    }

    fn parse(kind: Kind, tail: &str) -> Result<Self, &'static str> {
        match kind {
            Kind::Identities => parse_identity(tail).map(Self::Identity),
            Kind::Nodes => NodeName::new(tail).map(Self::Node).map_err(|_| "not a node name"),
            Kind::Ip => parse_ip(tail).map(Self::Ip),
            Kind::Services => {
                let (namespace, name) = tail.split_once('/').ok_or("no service name")?;
                let namespace = Namespace::new(namespace).map_err(|_| "not a namespace")?;
                let name = ObjectName::new(name).map_err(|_| "not a service name")?;
                Ok(Self::Service { namespace, name })
            }
        }
    }
}

/// The last part of the key.
impl fmt::Display for RowKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Identity(id) => write!(f, "{id}"),
            Self::Node(name) => write!(f, "{name}"),
            Self::Ip(prefix) if prefix.is_host() => write!(f, "{}", prefix.address()),
            Self::Ip(prefix) => write!(f, "{prefix}"),
            Self::Service { namespace, name } => write!(f, "{namespace}/{name}"),
        }
    }
}

impl Key {
    /// The key of a row.
    pub fn row(form: Form, cluster: &ClusterName, row: RowKey) -> Self {
        Self::Row { form, cluster: cluster.clone(), row }
    }

    /// The key of a canary.
    pub fn synced(form: Form, cluster: &ClusterName, kind: Kind) -> Self {
        Self::Synced { cluster: cluster.clone(), form, kind }
    }

    /// Understands a key. `owner` is the cluster whose store it stands in: identities and addresses in state form do not
    /// name their cluster.
    ///
    /// # Errors
    /// [`KeyError::UnknownFamily`] for keys that are not ours to read, else what is wrong.
    pub fn parse(key: &[u8], owner: &ClusterName) -> Result<Self, KeyError> {
        if key.len() > MAX_KEY_BYTES {
            return Err(KeyError::TooLong(key.len()));
        }
        let text = std::str::from_utf8(key).map_err(|_| KeyError::UnknownFamily)?;
        let malformed = |reason| KeyError::Malformed { key: text.chars().take(200).collect(), reason };
        if text == HEARTBEAT {
            return Ok(Self::Heartbeat);
        }
        if let Some(name) = text.strip_prefix(CLUSTER_CONFIG_PREFIX) {
            return ClusterName::new(name).map(Self::ClusterConfig).map_err(|_| malformed("not a cluster name"));
        }
        if let Some(tail) = text.strip_prefix(SYNCED_PREFIX) {
            let (cluster, base) = tail.split_once('/').ok_or_else(|| malformed("no prefix"))?;
            let cluster = ClusterName::new(cluster).map_err(|_| malformed("not a cluster name"))?;
            let (form, kind) = parse_base(base)
                .filter(|(.., rest)| rest.is_empty())
                .map(|(form, kind, _)| (form, kind))
                .ok_or(KeyError::UnknownFamily)?;
            return Ok(Self::Synced { cluster, form, kind });
        }
        let (form, kind, rest) = parse_base(text).ok_or(KeyError::UnknownFamily)?;
        let rest = rest.strip_prefix('/').ok_or_else(|| malformed("no object"))?;
        let (cluster, tail) = split_cluster(form, kind, rest, owner).map_err(malformed)?;
        let row = RowKey::parse(kind, tail).map_err(malformed)?;
        Ok(Self::Row { form, cluster, row })
    }
}

/// Cuts `cilium/state/nodes/v1` off the front.
fn parse_base(text: &str) -> Option<(Form, Kind, &str)> {
    let (form, text) = Form::ALL.iter().find_map(|form| text.strip_prefix(form.prefix()).map(|rest| (*form, rest)))?;
    let (kind, text) = Kind::ALL.iter().find_map(|kind| text.strip_prefix(kind.as_str()).map(|rest| (*kind, rest)))?;
    let rest = text.strip_prefix("/v1")?;
    (rest.is_empty() || rest.starts_with('/')).then_some((form, kind, rest))
}

/// Cuts the cluster and the fixed part behind it off the front.
fn split_cluster<'a>(
    form: Form,
    kind: Kind,
    rest: &'a str,
    owner: &ClusterName,
) -> Result<(ClusterName, &'a str), &'static str> {
    let named = || {
        let (cluster, tail) = rest.split_once('/').ok_or("no object")?;
        Ok((ClusterName::new(cluster).map_err(|_| "not a cluster name")?, tail))
    };
    match (kind, form) {
        (Kind::Identities, Form::State) => {
            Ok((owner.clone(), rest.strip_prefix("id/").ok_or("not an identity's number")?))
        }
        (Kind::Identities, Form::Cache) => {
            let (cluster, tail): (ClusterName, &str) = named()?;
            Ok((cluster, tail.strip_prefix("id/").ok_or("not an identity's number")?))
        }
        (Kind::Ip, Form::State) => {
            Ok((owner.clone(), rest.strip_prefix("default/").ok_or("not in address space default")?))
        }
        (Kind::Nodes | Kind::Services, Form::State) | (Kind::Nodes | Kind::Ip | Kind::Services, Form::Cache) => named(),
    }
}

/// Decimal without sign or leading zeros, so that one identity has one key.
fn parse_identity(tail: &str) -> Result<Identity, &'static str> {
    let number: u32 = tail.parse().map_err(|_| "not a number")?;
    if number.to_string() != tail {
        return Err("number is not in its shortest form");
    }
    Identity::new(number).map_err(|_| "not an identity")
}

/// An address, or a prefix with its length; the form in which we would write it, so that one prefix has one key.
fn parse_ip(tail: &str) -> Result<Prefix, &'static str> {
    let prefix = match tail.split_once('/') {
        None => tail.parse::<IpAddr>().map(Prefix::host).map_err(|_| "not an address")?,
        Some(_) => tail.parse::<Prefix>().map_err(|_| "not a prefix")?,
    };
    if RowKey::Ip(prefix).to_string() == tail { Ok(prefix) } else { Err("address is not in its canonical form") }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ClusterConfig(cluster) => write!(f, "{CLUSTER_CONFIG_PREFIX}{cluster}"),
            Self::Heartbeat => f.write_str(HEARTBEAT),
            Self::Synced { cluster, form, kind } => write!(f, "{SYNCED_PREFIX}{cluster}/{}", kind.base(*form)),
            Self::Row { form, cluster, row } => write!(f, "{}{row}", row.kind().rows_prefix(*form, cluster)),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn owner() -> ClusterName {
        ClusterName::new("eu").unwrap()
    }

    /// From the table of `wire.md` 1.1.
    const KEYS: [&str; 18] = [
        "cilium/.heartbeat",
        "cilium/cluster-config/us",
        "cilium/state/nodes/v1/eu/n1",
        "cilium/cache/nodes/v1/us/n1",
        "cilium/state/identities/v1/id/65792",
        "cilium/cache/identities/v1/us/id/131329",
        "cilium/state/ip/v1/default/10.1.2.3",
        "cilium/state/ip/v1/default/10.1.2.0/24",
        "cilium/state/ip/v1/default/fd00::1",
        "cilium/cache/ip/v1/us/10.2.2.3",
        "cilium/cache/ip/v1/us/fd00:2::/64",
        "cilium/state/services/v1/eu/demo/web",
        "cilium/cache/services/v1/us/demo/web",
        "cilium/synced/eu/cilium/state/nodes/v1",
        "cilium/synced/eu/cilium/state/identities/v1",
        "cilium/synced/eu/cilium/state/ip/v1",
        "cilium/synced/eu/cilium/state/services/v1",
        "cilium/synced/us/cilium/cache/ip/v1",
    ];

    #[test]
    fn keys_go_both_ways() {
        for key in KEYS {
            assert_eq!(Key::parse(key.as_bytes(), &owner()).unwrap().to_string(), key);
        }
    }

    #[test]
    fn state_form_belongs_to_the_owner() {
        let key = Key::parse(b"cilium/state/ip/v1/default/10.1.2.3", &owner()).unwrap();
        assert!(matches!(key, Key::Row { form: Form::State, cluster, row: RowKey::Ip(_) } if cluster == "eu"));
    }

    #[test]
    fn other_families_are_ignored() {
        for key in [
            "",
            "fabric/x",
            "cilium/state/serviceexports/v1/eu/a/b",
            "cilium/synced/eu/cilium/state/serviceexports/v1",
            "cilium/state/nodes/v2/eu/n1",
            "cilium/state/nodesx/v1/eu/n1",
            "cilium/state/nodes/v10/eu/n1",
            "cilium/.heartbeat/x",
        ] {
            assert_eq!(Key::parse(key.as_bytes(), &owner()), Err(KeyError::UnknownFamily), "{key}");
        }
        assert_eq!(Key::parse(b"\xff", &owner()), Err(KeyError::UnknownFamily));
    }

    #[test]
    fn malformed_keys_are_refused() {
        for key in [
            "cilium/cluster-config/",
            "cilium/cluster-config/a/b",
            "cilium/cluster-config/default",
            "cilium/state/nodes/v1/eu",
            "cilium/state/nodes/v1/eu/",
            "cilium/state/nodes/v1//n1",
            "cilium/state/nodes/v1/eu/a/b",
            "cilium/state/identities/v1/id/",
            "cilium/state/identities/v1/id/+7",
            "cilium/state/identities/v1/id/007",
            "cilium/state/identities/v1/id/4294967295",
            "cilium/state/identities/v1/value/x",
            "cilium/state/ip/v1/other/10.1.2.3",
            "cilium/state/ip/v1/default/10.1.2.3/32",
            "cilium/state/ip/v1/default/10.1.2.3/24",
            "cilium/state/ip/v1/default/FD00::1",
            "cilium/state/ip/v1/default/10.1.2.3@2",
            "cilium/state/services/v1/eu/web",
            "cilium/state/services/v1/eu/a/b/c",
        ] {
            assert!(matches!(Key::parse(key.as_bytes(), &owner()), Err(KeyError::Malformed { .. })), "{key}");
        }
        assert_eq!(Key::parse(&[b'a'; 1025], &owner()), Err(KeyError::TooLong(1025)));
    }

    #[test]
    fn cluster_names_that_begin_alike_do_not_mix() {
        let (a, ab) = (ClusterName::new("a").unwrap(), ClusterName::new("ab").unwrap());
        for kind in Kind::ALL {
            assert!(!kind.rows_prefix(Form::Cache, &ab).starts_with(&kind.rows_prefix(Form::Cache, &a)));
        }
    }

    proptest! {
        #[test]
        fn what_is_understood_is_written_the_same(tail in "[a-z0-9:./]{0,40}", start in 0usize..KEYS.len()) {
            let base = KEYS[start];
            for cut in [base.len(), base.len().saturating_sub(3), base.len() / 2] {
                let key = format!("{}{tail}", &base[..cut]);
                if let Ok(parsed) = Key::parse(key.as_bytes(), &owner()) {
                    prop_assert_eq!(parsed.to_string(), key);
                }
            }
        }

        #[test]
        fn no_bytes_panic(key in proptest::collection::vec(any::<u8>(), 0..80)) {
            let _ = Key::parse(&key, &owner());
        }
    }
}
