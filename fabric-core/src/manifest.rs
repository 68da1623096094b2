//! Documents that a person applies: YAML or JSON in, checked objects out.
//!
//! Strict on purpose: what is not understood is refused by name and place, never ignored, since an ignored field of a
//! policy would open what its author meant to close. Begin reading at [`parse`]; [`Object`] is what comes out.
//!
//! What the objects *mean* is elsewhere: [`crate::policy`], [`crate::service`].

mod canonical;
mod cilium_policy;
mod cluster_link;
mod error;
mod field;
mod metadata;
mod network_policy;
mod ports;
mod selector;
mod service;
mod tree;

use std::fmt;
use std::str::FromStr;

pub use canonical::NotAnObject;
pub use cilium_policy::{CiliumPeers, CiliumPolicy, CiliumRule, CiliumSections, CiliumSpec};
pub use cluster_link::ClusterLink;
pub use error::{Alternatives, ManifestError, Problem};
pub use metadata::Metadata;
pub use network_policy::{NetworkPolicy, NetworkPolicyPeer, NetworkPolicyRule};
pub use tree::{MAX_DEPTH, MAX_DOCUMENTS, MAX_TEXT_BYTES};

use crate::names::{Namespace, ObjectName};
use crate::service::ServiceSpec;
use field::{Field, Map, Refusal};
use metadata::Scope;
use tree::Node;

/// A kind of object that can be applied.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// `v1`.
    Service,
    /// `networking.k8s.io/v1`.
    NetworkPolicy,
    /// `cilium.io/v2`.
    CiliumNetworkPolicy,
    /// `cilium.io/v2`, in no namespace.
    CiliumClusterwideNetworkPolicy,
    /// `fabric.io/v1alpha1`, in no namespace.
    ClusterLink,
}

/// What names one object.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectKey {
    /// Of which kind.
    pub kind: Kind,
    /// `None` for kinds that live in no namespace.
    pub namespace: Option<Namespace>,
    /// Unique among objects of the kind and namespace.
    pub name: ObjectName,
}

/// A checked object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Object {
    /// Name and notes.
    pub metadata: Metadata,
    /// What it says.
    pub spec: Spec,
    /// The document in canonical form.
    document: serde_json::Value,
}

/// What an object says, by kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Spec {
    /// A service.
    Service(ServiceSpec),
    /// A Kubernetes policy.
    NetworkPolicy(NetworkPolicy),
    /// A Cilium policy for one namespace.
    CiliumNetworkPolicy(CiliumPolicy),
    /// A Cilium policy for all namespaces.
    CiliumClusterwideNetworkPolicy(CiliumPolicy),
    /// A peer.
    ClusterLink(Box<ClusterLink>),
}

/// Reads all documents of a text, YAML or JSON; empty documents are left out.
///
/// # Errors
/// The first thing that is wrong, with its place. Nothing is half read: all documents are good, or none is returned.
pub fn parse(text: &str) -> Result<Vec<Object>, ManifestError> {
    let mut objects: Vec<(usize, Object)> = Vec::new();
    for (document, node) in tree::read(text)? {
        let object = read_object(&node).map_err(|refusal| located(document, &node, refusal))?;
        if let Some((first, _)) = objects.iter().find(|(_, known)| known.key() == object.key()) {
            let why = format!("is already in document {first}; keep one of them");
            let problem = Problem::Invalid { value: object.key().to_string(), why };
            let refusal = Refusal { line: node.line, path: field::Path::root(), problem };
            return Err(ManifestError { object: None, ..located(document, &node, refusal) });
        }
        objects.push((document, object));
    }
    Ok(objects.into_iter().map(|(_, object)| object).collect())
}

fn located(document: usize, node: &Node, refusal: Refusal) -> ManifestError {
    ManifestError {
        document,
        line: Some(refusal.line).filter(|&line| line != 0),
        object: canonical::title(node),
        path: refusal.path.into_text(),
        problem: refusal.problem,
    }
}

fn read_object(node: &Node) -> Result<Object, Refusal> {
    let field = Field::root(node);
    let mut map = field.map()?;
    let kind = read_kind(&mut map)?;
    let metadata_field = map.required("metadata", "give the object a name")?;
    let metadata = metadata::read(&metadata_field, kind.scope())?;
    let spec = match kind {
        Kind::Service => Spec::Service(service::read(&mut map, &metadata)?),
        Kind::NetworkPolicy => {
            let spec = map.required("spec", "write at least podSelector")?;
            Spec::NetworkPolicy(network_policy::read(&spec)?)
        }
        Kind::CiliumNetworkPolicy => {
            Spec::CiliumNetworkPolicy(cilium_policy::read(&mut map, metadata.namespace.as_ref())?)
        }
        Kind::CiliumClusterwideNetworkPolicy => {
            Spec::CiliumClusterwideNetworkPolicy(cilium_policy::read(&mut map, metadata.namespace.as_ref())?)
        }
        Kind::ClusterLink => {
            let spec = map.required("spec", "describe the other cluster")?;
            Spec::ClusterLink(Box::new(cluster_link::read(&spec, &metadata)?))
        }
    };
    map.tolerate(&["status"]);
    map.finish()?;
    let document = canonical::document(node, kind, &metadata);
    Ok(Object { metadata, spec, document })
}

fn read_kind(map: &mut Map<'_>) -> Result<Kind, Refusal> {
    let api_version = map.required("apiVersion", "write apiVersion and kind of the object")?;
    let kind = map.required("kind", "write apiVersion and kind of the object")?;
    let (api_version_text, kind_text) = (api_version.text()?, kind.text()?);
    let known = Kind::ALL.into_iter().find(|known| known.as_str() == kind_text);
    match known {
        Some(known) if known.api_version() == api_version_text => Ok(known),
        Some(known) => Err(api_version.invalid(
            api_version_text,
            format!("is not the version of {known} that is read; write {}", known.api_version()),
        )),
        None => Err(kind.refuse(Problem::UnknownKind {
            api_version: api_version_text.chars().take(64).collect(),
            kind: kind_text.chars().take(64).collect(),
            known: "Service, NetworkPolicy, CiliumNetworkPolicy, CiliumClusterwideNetworkPolicy, ClusterLink",
        })),
    }
}

impl Kind {
    /// All kinds.
    pub const ALL: [Self; 5] = [
        Self::Service,
        Self::NetworkPolicy,
        Self::CiliumNetworkPolicy,
        Self::CiliumClusterwideNetworkPolicy,
        Self::ClusterLink,
    ];

    /// As documents name it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Service => "Service",
            Self::NetworkPolicy => "NetworkPolicy",
            Self::CiliumNetworkPolicy => "CiliumNetworkPolicy",
            Self::CiliumClusterwideNetworkPolicy => "CiliumClusterwideNetworkPolicy",
            Self::ClusterLink => "ClusterLink",
        }
    }

    /// The one version of it that is read.
    pub const fn api_version(self) -> &'static str {
        match self {
            Self::Service => "v1",
            Self::NetworkPolicy => "networking.k8s.io/v1",
            Self::CiliumNetworkPolicy | Self::CiliumClusterwideNetworkPolicy => "cilium.io/v2",
            Self::ClusterLink => "fabric.io/v1alpha1",
        }
    }

    /// Whether objects of the kind live in a namespace.
    pub const fn is_namespaced(self) -> bool {
        matches!(self.scope(), Scope::Namespaced)
    }

    /// Whether it is one of the three kinds of policy.
    pub const fn is_policy(self) -> bool {
        match self {
            Self::NetworkPolicy | Self::CiliumNetworkPolicy | Self::CiliumClusterwideNetworkPolicy => true,
            Self::Service | Self::ClusterLink => false,
        }
    }

    const fn scope(self) -> Scope {
        match self {
            Self::Service | Self::NetworkPolicy | Self::CiliumNetworkPolicy => Scope::Namespaced,
            Self::CiliumClusterwideNetworkPolicy | Self::ClusterLink => Scope::Cluster,
        }
    }
}

/// A kind that is not known.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not Service, NetworkPolicy, CiliumNetworkPolicy, CiliumClusterwideNetworkPolicy or ClusterLink")]
pub struct UnknownKind(pub String);

impl FromStr for Kind {
    type Err = UnknownKind;

    /// Takes the full name, in any case, and the short names of `kubectl`: `svc`, `netpol`, `cnp`, `ccnp`; plurals too.
    fn from_str(text: &str) -> Result<Self, UnknownKind> {
        let lower = text.to_ascii_lowercase();
        let short = match lower.as_str() {
            "svc" | "services" => Some(Self::Service),
            "netpol" | "networkpolicies" => Some(Self::NetworkPolicy),
            "cnp" | "ciliumnetworkpolicies" => Some(Self::CiliumNetworkPolicy),
            "ccnp" | "ciliumclusterwidenetworkpolicies" => Some(Self::CiliumClusterwideNetworkPolicy),
            "link" | "links" | "clusterlinks" => Some(Self::ClusterLink),
            _ => None,
        };
        short
            .or_else(|| Self::ALL.into_iter().find(|kind| kind.as_str().eq_ignore_ascii_case(text)))
            .ok_or_else(|| UnknownKind(text.chars().take(64).collect()))
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// `NetworkPolicy demo/web`.
impl fmt::Display for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.namespace {
            Some(namespace) => write!(f, "{} {namespace}/{}", self.kind, self.name),
            None => write!(f, "{} {}", self.kind, self.name),
        }
    }
}

impl Object {
    /// Of which kind it is.
    pub const fn kind(&self) -> Kind {
        match &self.spec {
            Spec::Service(_) => Kind::Service,
            Spec::NetworkPolicy(_) => Kind::NetworkPolicy,
            Spec::CiliumNetworkPolicy(_) => Kind::CiliumNetworkPolicy,
            Spec::CiliumClusterwideNetworkPolicy(_) => Kind::CiliumClusterwideNetworkPolicy,
            Spec::ClusterLink(_) => Kind::ClusterLink,
        }
    }

    /// What names it.
    pub fn key(&self) -> ObjectKey {
        ObjectKey { kind: self.kind(), namespace: self.metadata.namespace.clone(), name: self.metadata.name.clone() }
    }
}

#[cfg(test)]
mod tests;
