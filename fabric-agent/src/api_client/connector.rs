//! Makes TLS connections to one of several addresses.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tonic::transport::Uri;

use super::tls::ServerName;

/// How long one address may take for TCP and TLS.
const ATTEMPT: Duration = Duration::from_secs(3);

/// What the connector reads anew for every connection.
#[derive(Debug)]
pub(super) struct Shared {
    /// Tried in order; the one that answered last is first.
    pub(super) endpoints: Mutex<Vec<SocketAddr>>,
    pub(super) tls: ArcSwap<ClientConfig>,
    pub(super) server: ServerName,
    pub(super) last_error: Mutex<Option<String>>,
}

type Io = TokioIo<TlsStream<TcpStream>>;
type Connecting = Pin<Box<dyn Future<Output = io::Result<Io>> + Send>>;

/// The connector as the channel wants it.
pub(super) fn service(
    shared: Arc<Shared>,
) -> impl tower::Service<Uri, Response = Io, Error = io::Error, Future = Connecting> + Clone + Send + 'static {
    tower::service_fn(move |_: Uri| {
        let shared = Arc::clone(&shared);
        Box::pin(async move { shared.connect().await }) as Connecting
    })
}

impl Shared {
    async fn connect(&self) -> io::Result<Io> {
        let endpoints = self.endpoints.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let mut problems = Vec::new();
        for endpoint in endpoints {
            let attempt = tokio::time::timeout(ATTEMPT, self.connect_to(endpoint));
            match attempt.await.unwrap_or_else(|_| Err(io::Error::new(io::ErrorKind::TimedOut, "no answer"))) {
                Ok(stream) => {
                    self.prefer(endpoint);
                    *self.last_error.lock().unwrap_or_else(PoisonError::into_inner) = None;
                    return Ok(TokioIo::new(stream));
                }
                Err(error) => problems.push(format!("{endpoint}: {error}")),
            }
        }
        let text = if problems.is_empty() { "no address of the API is known".to_owned() } else { problems.join("; ") };
        *self.last_error.lock().unwrap_or_else(PoisonError::into_inner) = Some(text.clone());
        Err(io::Error::new(io::ErrorKind::NotConnected, text))
    }

    async fn connect_to(&self, endpoint: SocketAddr) -> io::Result<TlsStream<TcpStream>> {
        let stream = TcpStream::connect(endpoint).await?;
        stream.set_nodelay(true)?;
        let connector = TlsConnector::from(self.tls.load_full());
        // The name is not checked (addresses move); it is only what the protocol wants to be told.
        connector.connect(rustls_pki_types::ServerName::from(endpoint.ip()), stream).await
    }

    fn prefer(&self, endpoint: SocketAddr) {
        let mut endpoints = self.endpoints.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(position) = endpoints.iter().position(|one| *one == endpoint) {
            endpoints.swap(0, position);
        }
    }
}
