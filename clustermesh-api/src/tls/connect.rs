//! gRPC channels over our TLS: several addresses, one live certificate, reconnects by itself.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tonic::transport::{Channel, Endpoint, Uri};

/// Where to connect and with what, replaceable while channels live: a new connection takes what is current. Clones
/// share it.
#[derive(Debug, Clone)]
pub struct Connector {
    target: Arc<ArcSwap<Target>>,
    /// Which of the addresses answered last: tried first next time.
    preferred: Arc<AtomicUsize>,
}

#[derive(Debug)]
struct Target {
    /// `ip:port` or `host:port`.
    addresses: Vec<String>,
    tls: Arc<ClientConfig>,
}

impl Connector {
    /// Connects to the first of these addresses that answers.
    pub fn new(addresses: &[SocketAddr], tls: Arc<ClientConfig>) -> Self {
        Self::with_hosts(addresses.iter().map(ToString::to_string).collect(), tls)
    }

    /// The same for names, `host:port`.
    pub fn with_hosts(addresses: Vec<String>, tls: Arc<ClientConfig>) -> Self {
        let target = Arc::new(ArcSwap::from_pointee(Target { addresses, tls }));
        Self { target, preferred: Arc::new(AtomicUsize::new(0)) }
    }

    /// Takes other addresses or another configuration from the next connection on.
    pub fn replace(&self, addresses: &[SocketAddr], tls: Arc<ClientConfig>) {
        let addresses = addresses.iter().map(ToString::to_string).collect();
        self.target.store(Arc::new(Target { addresses, tls }));
    }

    /// The addresses as they are now.
    pub fn addresses(&self) -> Vec<String> {
        self.target.load().addresses.clone()
    }

    /// Opens one connection, at most `timeout` per address.
    ///
    /// # Errors
    /// What the last address said, when none answers.
    pub async fn connect(&self, timeout: Duration) -> io::Result<TlsStream<TcpStream>> {
        let target = self.target.load_full();
        let (first, count) = (self.preferred.load(Ordering::Relaxed), target.addresses.len());
        let mut last = io::Error::new(io::ErrorKind::AddrNotAvailable, "no address to connect to");
        for attempt in 0..count {
            let index = first.wrapping_add(attempt) % count;
            let Some(address) = target.addresses.get(index) else { continue };
            let attempt = tokio::time::timeout(timeout, connect(address, &target.tls));
            match attempt.await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())) {
                Ok(stream) => {
                    self.preferred.store(index, Ordering::Relaxed);
                    return Ok(stream);
                }
                Err(error) => last = error,
            }
        }
        Err(last)
    }
}

async fn connect(address: &str, tls: &Arc<ClientConfig>) -> io::Result<TlsStream<TcpStream>> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let host = address.rsplit_once(':').map_or(address, |(host, _)| host).trim_matches(['[', ']']);
    let name = match host.parse::<IpAddr>() {
        Ok(address) => ServerName::IpAddress(address.into()),
        Err(_) => ServerName::try_from(host.to_owned()).map_err(io::Error::other)?,
    };
    TlsConnector::from(Arc::clone(tls)).connect(name, stream).await
}

/// Makes a gRPC channel that connects when it is first used and again whenever it must.
///
/// Connecting takes at most `connect_timeout` per address; a dead connection is noticed within 15 s.
pub fn mesh_channel(connector: &Connector, connect_timeout: Duration) -> Channel {
    let connector = connector.clone();
    let service = tower::service_fn(move |_: Uri| {
        let connector = connector.clone();
        async move { connector.connect(connect_timeout).await.map(TokioIo::new) }
    });
    // Neither name goes further than the request's headers: the connector decides where to, TLS decides with whom.
    Endpoint::from_static("http://fabric.invalid")
        .origin(Uri::from_static("https://fabric.invalid"))
        .http2_keep_alive_interval(KEEPALIVE_INTERVAL)
        .keep_alive_timeout(KEEPALIVE_TIMEOUT)
        .initial_stream_window_size(WINDOW_BYTES)
        .initial_connection_window_size(WINDOW_BYTES)
        .connect_with_connector_lazy(service)
}

/// etcd ends connections that ping more often than every 5 s.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(5);
/// A page of a list should not wait for window updates.
const WINDOW_BYTES: u32 = 4 << 20;
