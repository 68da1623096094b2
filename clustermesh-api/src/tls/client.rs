//! The client's half: trust in one authority, and the role that the server must have.

use std::sync::Arc;

use fabric_core::names::ClusterName;
use rustls::ClientConfig;
use rustls_pki_types::CertificateDer;

use crate::pki::{Leaf, Pin, Role};

/// Whom a client expects at the other end.
#[derive(Debug, Clone)]
pub struct ServerTrust {
    /// Hash of the public key of the one authority that counts. Its certificate need not be known beforehand: servers
    /// send it with their own.
    pub pin: Pin,
    /// The authority's certificate where it is known; needed for servers that do not send it.
    pub authority: Option<CertificateDer<'static>>,
    /// What the server's certificate must say; `None`: any name of the authority's (a Cilium cluster's server).
    pub role: Option<Role>,
    /// The cluster that it must be of; `None` where only the pin is known.
    pub cluster: Option<ClusterName>,
}

impl ServerTrust {
    /// Expects an API whose authority is known by its pin, of whatever cluster.
    pub fn pinned_api(pin: Pin) -> Self {
        Self { pin, authority: None, role: Some(Role::Api), cluster: None }
    }
}

/// What a client shows of itself.
#[derive(Debug)]
pub enum ClientIdentity<'a> {
    /// Nothing.
    Anonymous,
    /// A leaf with its key.
    Leaf(&'a Leaf),
}

/// Builds a TLS 1.3 client configuration.
///
/// # Errors
/// When the leaf has no key here, or it does not fit.
pub fn client_config(
    trust: &ServerTrust,
    identity: &ClientIdentity<'_>,
    alpn: &[&[u8]],
) -> Result<Arc<ClientConfig>, rustls::Error> {
    let _ = (trust, identity, alpn);
    todo!()
}
