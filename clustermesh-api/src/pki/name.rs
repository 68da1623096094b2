//! Who a certificate says its holder is: `spiffe://<cluster>/<role>`.

use std::fmt;
use std::str::FromStr;

use fabric_core::names::{ClusterName, InvalidName, NodeName};
use rustls_pki_types::CertificateDer;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

/// What the holder of a certificate is, within its cluster.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Role {
    /// Runs endpoints; the agent of that node.
    Node(NodeName),
    /// Is itself an endpoint (VM, bare metal).
    Machine(NodeName),
    /// A replica of the cluster's API, as server and as the reader of other clusters.
    Api,
    /// A person or program with the cluster's administration.
    Admin(String),
    /// Only reads the mesh endpoint, as Cilium's readers do.
    Remote(String),
}

/// The one URI name of a certificate.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct PeerName {
    /// The cluster that the certificate is of.
    pub cluster: ClusterName,
    /// What its holder is there.
    pub role: Role,
}

/// A certificate, or a URI, that names nobody.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// The bytes are no certificate.
    #[error("not an X.509 certificate")]
    Certificate,
    /// The certificate has no URI name, or several.
    #[error("certificate has {count} URI names, one is needed")]
    UriCount {
        /// How many it has.
        count: usize,
    },
    /// Not `spiffe://<cluster>/<role>`.
    #[error("certificate names {uri:?}, which is not spiffe://<cluster>/<role>")]
    Uri {
        /// What it names, cut to a readable length.
        uri: String,
    },
    /// Cluster or node name not allowed.
    #[error("certificate's name")]
    Name(#[from] InvalidName),
}

impl PeerName {
    /// Builds a name.
    pub fn new(cluster: &ClusterName, role: Role) -> Self {
        Self { cluster: cluster.clone(), role }
    }

    /// Reads the one URI name of a certificate.
    ///
    /// # Errors
    /// When there is not exactly one, or it is not of our form.
    pub fn of_certificate(certificate: &CertificateDer<'_>) -> Result<Self, NameError> {
        let (_, parsed) = X509Certificate::from_der(certificate).map_err(|_| NameError::Certificate)?;
        let names = parsed.subject_alternative_name().map_err(|_| NameError::Certificate)?;
        let uris: Vec<&str> = names.iter().flat_map(|names| &names.value.general_names).filter_map(uri).collect();
        let [uri] = uris[..] else { return Err(NameError::UriCount { count: uris.len() }) };
        uri.parse()
    }

    /// The certificate's common name, as etcd names its users: `remote-<cluster>` for an API, as its mirrors read
    /// with it; else the role.
    pub fn common_name(&self) -> String {
        let cluster = &self.cluster;
        match &self.role {
            Role::Node(name) | Role::Machine(name) => name.to_string(),
            Role::Api => format!("remote-{cluster}"),
            Role::Admin(_) => format!("admin-{cluster}"),
            Role::Remote(name) => name.clone(),
        }
    }
}

fn uri<'a>(name: &GeneralName<'a>) -> Option<&'a str> {
    match name {
        GeneralName::URI(uri) => Some(uri),
        _ => None,
    }
}

impl fmt::Display for PeerName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let cluster = &self.cluster;
        match &self.role {
            Role::Node(name) => write!(f, "spiffe://{cluster}/node/{name}"),
            Role::Machine(name) => write!(f, "spiffe://{cluster}/machine/{name}"),
            Role::Api => write!(f, "spiffe://{cluster}/api"),
            Role::Admin(name) => write!(f, "spiffe://{cluster}/admin/{name}"),
            Role::Remote(name) => write!(f, "spiffe://{cluster}/remote/{name}"),
        }
    }
}

impl FromStr for PeerName {
    type Err = NameError;
    fn from_str(uri: &str) -> Result<Self, NameError> {
        let bad = || NameError::Uri { uri: uri.chars().take(128).collect() };
        let (cluster, role) = uri.strip_prefix("spiffe://").and_then(|rest| rest.split_once('/')).ok_or_else(bad)?;
        let cluster = ClusterName::new(cluster)?;
        let role = match role.split_once('/') {
            None if role == "api" => Role::Api,
            Some(("node", name)) => Role::Node(NodeName::new(name)?),
            Some(("machine", name)) => Role::Machine(NodeName::new(name)?),
            Some(("admin", name)) => Role::Admin(free_name(name).ok_or_else(bad)?),
            Some(("remote", name)) => Role::Remote(free_name(name).ok_or_else(bad)?),
            _ => return Err(bad()),
        };
        Ok(Self { cluster, role })
    }
}

/// A name of a person or reader: what a URI path segment may hold without escapes.
fn free_name(name: &str) -> Option<String> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'@');
    (1..=64).contains(&name.len()).then_some(())?;
    name.bytes().all(allowed).then(|| name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_come_back_as_they_went() {
        for text in [
            "spiffe://eu/node/n1.rack-2",
            "spiffe://eu/machine/vm",
            "spiffe://eu/api",
            "spiffe://eu/admin/root@host",
            "spiffe://eu/remote/remote-us",
        ] {
            assert_eq!(text.parse::<PeerName>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn other_names_are_refused() {
        for text in [
            "",
            "spiffe://eu",
            "spiffe://eu/",
            "spiffe://eu/api/",
            "spiffe://eu/api/x",
            "spiffe://EU/api",
            "spiffe://eu/node/",
            "spiffe://eu/node/a/b",
            "spiffe://eu/admin/",
            "spiffe://eu/admin/a/b",
            "spiffe://eu/root",
            "https://eu/api",
        ] {
            assert!(text.parse::<PeerName>().is_err(), "{text}");
        }
    }
}
