//! Where each record stands. Every key here begins with `fabric/`, which the mesh endpoint never serves.

use fabric_core::labels::LabelSet;
use fabric_core::names::{ClusterName, Namespace, NodeName, ObjectName};
use sha2::{Digest as _, Sha256};

use crate::pki::Pin;

/// The cluster's own settings.
pub const CLUSTER: &str = "fabric/cluster";
/// All node and machine records.
pub const NODES: &str = "fabric/nodes/";
/// Which range or address belongs to which node, machine or service.
pub const CLAIMS: &str = "fabric/claims/";
/// Certificates that are refused.
pub const REVOKED: &str = "fabric/revoked/";
/// The number given last to an identity.
pub const IDENTITY_LAST: &str = "fabric/identity/last";
/// Which labels have which number.
pub const IDENTITY_LABELS: &str = "fabric/identity/labels/";
/// All endpoint records.
pub const ENDPOINTS: &str = "fabric/endpoints/";
/// All links.
pub const LINKS: &str = "fabric/links/";
/// All enrolment tokens.
pub const TOKENS: &str = "fabric/tokens/";
/// All invites.
pub const INVITES: &str = "fabric/invites/";
/// All documents that users applied.
pub const OBJECTS: &str = "fabric/objects/";
/// Stands for the namespace of what has none; no namespace can be named so.
pub const NO_NAMESPACE: &str = "-";

/// A node's or machine's record.
pub fn node(name: &NodeName) -> String {
    format!("{NODES}{name}")
}

/// Who has a range or address.
pub fn claim(range: impl std::fmt::Display) -> String {
    format!("{CLAIMS}{range}")
}

/// The mark of a certificate's key that is refused.
pub fn revoked(key: &Pin) -> String {
    format!("{REVOKED}{key}")
}

/// The mark of a name whose certificates of before are refused, whatever their keys.
pub fn revoked_name(name: &NodeName) -> String {
    format!("{REVOKED}name/{name}")
}

/// Label sets can be longer than a key should be: the key holds their hash, the record the labels themselves.
pub fn identity_labels(labels: &LabelSet) -> String {
    format!("{IDENTITY_LABELS}{}", hex::encode(Sha256::digest(labels.to_wire())))
}

/// All endpoints of a node.
pub fn endpoints_of(node: &NodeName) -> String {
    format!("{ENDPOINTS}{node}/")
}

/// An endpoint's record. `name` comes from a node and may hold slashes: it stands last.
pub fn endpoint(node: &NodeName, name: &str) -> String {
    format!("{ENDPOINTS}{node}/{name}")
}

/// A link's record.
pub fn link(cluster: &ClusterName) -> String {
    format!("{LINKS}{cluster}")
}

/// A token's record.
pub fn token(id: &str) -> String {
    format!("{TOKENS}{id}")
}

/// An invite's record.
pub fn invite(id: &str) -> String {
    format!("{INVITES}{id}")
}

/// An applied document.
pub fn object(kind: &str, namespace: Option<&Namespace>, name: &ObjectName) -> String {
    format!("{OBJECTS}{kind}/{}/{name}", namespace.map_or(NO_NAMESPACE, Namespace::as_str))
}
