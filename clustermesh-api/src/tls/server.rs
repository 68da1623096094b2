//! The server's half: configuration, and accepting a connection with its peer's identity.

use std::io;
use std::sync::Arc;

use arc_swap::ArcSwap;
use rustls::ServerConfig;
use rustls::sign::CertifiedKey;
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;

use super::trust::{PeerIdentity, TrustedAuthorities};
use crate::pki::Leaf;

/// Whether a client must show a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClientCertificate {
    /// The handshake fails without one (mesh endpoint).
    Required,
    /// Calls decide (API: redeeming a token works without).
    Optional,
}

/// The server's own certificate, replaceable while it serves. Clones share it.
#[derive(Debug, Clone)]
pub struct ServerCertificate {
    current: Arc<ArcSwap<CertifiedKey>>,
}

impl ServerCertificate {
    /// Serves a leaf that was issued with its key.
    ///
    /// # Errors
    /// When the leaf has no key here, or it does not fit.
    pub fn new(leaf: &Leaf) -> Result<Self, rustls::Error> {
        let _ = leaf;
        todo!()
    }

    /// Serves another leaf from now on; live connections keep theirs.
    ///
    /// # Errors
    /// When the leaf has no key here, or it does not fit.
    pub fn replace(&self, leaf: &Leaf) -> Result<(), rustls::Error> {
        let _ = (leaf, &self.current);
        todo!()
    }
}

/// Builds a TLS 1.3 server configuration over a live set of authorities and a live certificate.
///
/// `alpn`: what is served, the preferred first.
///
/// # Errors
/// When the crypto provider lacks TLS 1.3 (never, with ours).
pub fn server_config(
    certificate: &ServerCertificate,
    trusted: &TrustedAuthorities,
    clients: ClientCertificate,
    alpn: &[&[u8]],
) -> Result<Arc<ServerConfig>, rustls::Error> {
    let _ = (certificate, trusted, clients, alpn);
    todo!()
}

/// A connection whose handshake is done.
#[derive(Debug)]
pub struct Accepted {
    /// The encrypted stream.
    pub stream: TlsStream<TcpStream>,
    /// Who is at its other end; `None` = showed no certificate.
    pub peer: Option<PeerIdentity>,
}

/// Does the server's half of a handshake, within ten seconds.
///
/// # Errors
/// When it fails, takes too long, or nobody vouches for the client (any more).
pub async fn accept(
    stream: TcpStream,
    config: &Arc<ServerConfig>,
    trusted: &TrustedAuthorities,
) -> io::Result<Accepted> {
    let _ = (stream, config, trusted);
    std::future::ready(()).await;
    todo!()
}
