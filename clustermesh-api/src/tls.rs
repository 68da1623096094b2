//! TLS 1.3 between clusters, nodes and people: who is trusted, live, and who the other end is.
//!
//! A server trusts a live set of authorities ([`TrustedAuthorities`]): its own cluster's and those of linked clusters.
//! Links come and go without a restart; a connection's [`PeerIdentity`] says which authority vouched and for which name.
//! A client trusts exactly one authority, known whole or by its [`Pin`](crate::pki::Pin) only, and checks that the
//! server's certificate names the role and cluster that it wants; host names play no part.
//!
//! What is not here: what an identity may do. That is decided where it is asked for.

mod client;
mod connect;
mod fault;
mod server;
mod trust;

pub(crate) use client::host_checked_config;
pub use client::{ClientIdentity, ServerTrust, client_config};
pub use connect::{Connector, mesh_channel};
pub use fault::{TlsFault, tls_fault};
pub use server::{Accepted, ClientCertificate, ServerCertificate, accept, server_config};
pub use trust::{AuthorityOf, Grant, PeerAuthority, PeerIdentity, TrustedAuthorities, UntrustedError};

/// The only protocol an HTTP/2 gRPC server needs.
pub const ALPN_H2: &[u8] = b"h2";
/// Beside gRPC, the mesh endpoint answers `GET /version` and `/health`.
pub const ALPN_HTTP1: &[u8] = b"http/1.1";

/// The one crypto provider; its first key exchange is X25519MLKEM768.
fn provider() -> rustls::crypto::CryptoProvider {
    rustls::crypto::aws_lc_rs::default_provider()
}

#[cfg(test)]
mod tests;
