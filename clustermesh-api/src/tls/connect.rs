//! gRPC channels over our TLS: several addresses, one live certificate, reconnects by itself.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use rustls::ClientConfig;
use tonic::transport::Channel;

/// Where to connect and with what, replaceable while channels live: a new connection takes what is current.
#[derive(Debug, Clone)]
pub struct Connector {
    target: Arc<ArcSwap<Target>>,
}

#[derive(Debug)]
struct Target {
    addresses: Vec<SocketAddr>,
    tls: Arc<ClientConfig>,
}

impl Connector {
    /// Connects to the first of these addresses that answers.
    pub fn new(addresses: Vec<SocketAddr>, tls: Arc<ClientConfig>) -> Self {
        Self { target: Arc::new(ArcSwap::from_pointee(Target { addresses, tls })) }
    }

    /// Takes other addresses or another configuration from the next connection on.
    pub fn replace(&self, addresses: Vec<SocketAddr>, tls: Arc<ClientConfig>) {
        self.target.store(Arc::new(Target { addresses, tls }));
    }

    /// The addresses as they are now.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        let target = self.target.load();
        let _ = &target.tls;
        target.addresses.clone()
    }
}

/// Makes a gRPC channel that connects when it is first used and again whenever it must.
///
/// Connecting takes at most `connect_timeout`; a dead connection is noticed within 15 s.
pub fn mesh_channel(connector: &Connector, connect_timeout: Duration) -> Channel {
    let _ = (connector, connect_timeout);
    todo!()
}
