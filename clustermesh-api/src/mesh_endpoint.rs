//! The one port that a cluster opens to others: etcd's v3 read API, TLS both ways.
//!
//! Our own server, fed from the [`View`]; etcd itself faces nobody. Read only by construction: there is no code here that
//! writes. What exists for a client follows from its certificate; a link that goes ends its watches. Answers are those
//! that etcd would give, headers included.
//!
//! While etcd is away, reads and watches go on from memory; `Status` and `/health` say so.
//!
//! Where to begin reading: `scope` (who sees what), `range` and `watch` (what etcd would answer), `connection` (the port).

mod access;
mod connection;
mod errors;
mod range;
mod scope;
mod service;
mod watch;

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

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
    /// Bounds.
    pub limits: MeshEndpointLimits,
}

/// What one client, and all together, may take.
#[derive(Debug, Clone, Copy)]
pub struct MeshEndpointLimits {
    /// Connections in all.
    pub connections: usize,
    /// Calls at once per connection.
    pub streams: u32,
    /// Watches per stream.
    pub watches: usize,
    /// How often a watch that asked for it hears of progress while nothing happens; etcd's is ten minutes.
    pub progress_notify: Duration,
}

impl Default for MeshEndpointLimits {
    fn default() -> Self {
        Self { connections: 1024, streams: 256, watches: 1024, progress_notify: Duration::from_mins(10) }
    }
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
    ///
    /// # Errors
    /// When TLS cannot be set up.
    pub async fn serve(self, cancel: CancellationToken) -> Result<(), rustls::Error> {
        connection::serve(self.listener, self.params, cancel).await
    }
}

#[cfg(test)]
mod tests;
