//! Where the observer is served: a socket on this machine for root, and TLS on the node's addresses for the API.

use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::sync::Arc;

use clustermesh_api_proto::observer::observer_server::ObserverServer;
use fabric_core::names::ClusterName;
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use tokio::net::{TcpListener, UnixListener};
use tokio_rustls::TlsAcceptor;
use tokio_stream::wrappers::{ReceiverStream, UnixListenerStream};
use tokio_util::sync::CancellationToken;
use tracing::debug;

use super::observer::RingObserver;
use super::ring::FlowRing;
use crate::api_client::{Credentials, ServerName};

/// Where to listen.
#[derive(Debug, Clone)]
pub(crate) struct Addresses {
    /// On this machine.
    pub(crate) socket: PathBuf,
    /// On the underlay.
    pub(crate) tcp: Vec<SocketAddr>,
}

/// A handshake that takes longer is given up.
const HANDSHAKE: std::time::Duration = std::time::Duration::from_secs(5);

/// Connections whose handshake is under way at once.
const BACKLOG: usize = 64;

/// Serves until cancelled. `credentials` gives the node's certificate as it is now.
///
/// # Errors
/// When an address is taken.
pub(crate) async fn serve(
    ring: Arc<FlowRing>,
    node: String,
    addresses: Addresses,
    cluster: ClusterName,
    credentials: impl Fn() -> Arc<Credentials> + Clone + Send + Sync + 'static,
    cancel: CancellationToken,
) -> anyhow::Result<()> {
    let observer = ObserverServer::new(RingObserver::new(ring, node));
    // A socket that a killed agent left behind refuses the new one.
    drop(std::fs::remove_file(&addresses.socket));
    let local = UnixListener::bind(&addresses.socket)?;
    std::fs::set_permissions(&addresses.socket, std::fs::Permissions::from_mode(0o600))?;
    let (accepted, connections) = tokio::sync::mpsc::channel(BACKLOG);
    let mut listeners = Vec::new();
    for address in addresses.tcp {
        listeners.push(TcpListener::bind(address).await?);
    }
    let on_machine = tonic::transport::Server::builder()
        .add_service(observer.clone())
        .serve_with_incoming_shutdown(UnixListenerStream::new(local), cancel.clone().cancelled_owned());
    let on_underlay = tonic::transport::Server::builder()
        .add_service(observer)
        .serve_with_incoming_shutdown(ReceiverStream::new(connections), cancel.clone().cancelled_owned());
    let accepting =
        futures::future::join_all(listeners.into_iter().map(|listener| {
            accept_all(listener, cluster.clone(), credentials.clone(), accepted.clone(), cancel.clone())
        }));
    // The stream of connections ends with the last acceptor.
    drop(accepted);
    let (on_machine, on_underlay, _) = tokio::join!(on_machine, on_underlay, accepting);
    on_machine?;
    Ok(on_underlay?)
}

type Connection = std::io::Result<tokio_rustls::server::TlsStream<tokio::net::TcpStream>>;

async fn accept_all(
    listener: TcpListener,
    cluster: ClusterName,
    credentials: impl Fn() -> Arc<Credentials> + Send + Sync,
    accepted: tokio::sync::mpsc::Sender<Connection>,
    cancel: CancellationToken,
) {
    let mut handshakes = tokio::task::JoinSet::new();
    loop {
        tokio::select! {
            connection = listener.accept() => {
                let Ok((stream, peer)) = connection else { continue };
                if handshakes.len() >= BACKLOG {
                    debug!(%peer, "too many handshakes under way");
                    continue;
                }
                let Ok(config) = server_config(&credentials()) else { continue };
                let (accepted, api) = (accepted.clone(), ServerName::api_of(&cluster));
                handshakes.spawn(async move {
                    match tokio::time::timeout(HANDSHAKE, TlsAcceptor::from(config).accept(stream)).await {
                        Ok(Ok(stream)) if is_api(&stream, &api) => drop(accepted.send(Ok(stream)).await),
                        Ok(Ok(_)) => debug!(%peer, "is not the API"),
                        Ok(Err(error)) => debug!(%peer, %error, "handshake failed"),
                        Err(_) => debug!(%peer, "handshake took too long"),
                    }
                });
            }
            Some(_) = handshakes.join_next() => {}
            () = cancel.cancelled() => return,
        }
    }
}

/// Flows tell who talks to whom: only the API of the own cluster may read them over the network.
fn is_api(stream: &tokio_rustls::server::TlsStream<tokio::net::TcpStream>, api: &ServerName) -> bool {
    let certificates = stream.get_ref().1.peer_certificates();
    certificates.and_then(|c| c.first()).is_some_and(|leaf| api.is_in(leaf))
}

fn server_config(credentials: &Credentials) -> anyhow::Result<Arc<ServerConfig>> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut roots = RootCertStore::empty();
    roots.add(credentials.authority().clone())?;
    let clients = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider)).build()?;
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_client_cert_verifier(clients)
        .with_single_cert(credentials.chain().to_vec(), credentials.key())?;
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(Arc::new(config))
}
