//! The port: accepts, finds out who it is, hands calls to the services, refuses the rest.

use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use clustermesh_api_proto::etcdserverpb::kv_server::KvServer;
use clustermesh_api_proto::etcdserverpb::maintenance_server::MaintenanceServer;
use clustermesh_api_proto::etcdserverpb::watch_server::WatchServer;
use http::{Method, Request, Response, StatusCode, header};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use rustls::ServerConfig;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::body::Body;
use tower::ServiceExt as _;

use super::MeshEndpointParams;
use super::access::Access;
use super::errors::permission_denied;
use super::service::{Services, version};
use crate::tls::{ALPN_H2, ALPN_HTTP1, Accepted, ClientCertificate, accept, server_config};

/// No request that is answered is larger: keys are short.
const REQUEST_BYTES: usize = 64 << 10;
/// A client that vanished is noticed after both.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(10);
/// A plain HTTP request's headers come at once.
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);
/// After an error of `accept` itself (no file descriptors left).
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// For streams to end when the server does.
const DRAIN: Duration = Duration::from_secs(2);

#[derive(Debug)]
struct Endpoint {
    params: MeshEndpointParams,
    tls: Arc<ServerConfig>,
    cancel: CancellationToken,
}

pub(super) async fn serve(
    listener: TcpListener,
    params: MeshEndpointParams,
    cancel: CancellationToken,
) -> Result<(), rustls::Error> {
    let alpn = [ALPN_H2, ALPN_HTTP1];
    let tls = server_config(&params.certificate, &params.trusted, ClientCertificate::Required, &alpn)?;
    let room = Arc::new(Semaphore::new(params.limits.connections));
    // Children end when this function does, whatever becomes of its caller.
    let cancel = cancel.child_token();
    let _guard = cancel.clone().drop_guard();
    let endpoint = Arc::new(Endpoint { params, tls, cancel: cancel.clone() });
    let connections = TaskTracker::new();
    while let Some(accepted) = cancel.run_until_cancelled(listener.accept()).await {
        match accepted {
            Ok((stream, address)) => {
                let Ok(permit) = Arc::clone(&room).try_acquire_owned() else {
                    tracing::warn!("mesh endpoint is full; a connection was refused");
                    continue;
                };
                let endpoint = Arc::clone(&endpoint);
                connections.spawn(async move {
                    if let Err(error) = endpoint.connection(stream).await {
                        tracing::debug!(%address, %error, "mesh endpoint: connection ended");
                    }
                    drop(permit);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "mesh endpoint cannot accept");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    connections.close();
    if tokio::time::timeout(DRAIN, connections.wait()).await.is_err() {
        tracing::debug!(left = connections.len(), "mesh endpoint: connections did not drain");
    }
    Ok(())
}

impl Endpoint {
    async fn connection(&self, stream: TcpStream) -> io::Result<()> {
        stream.set_nodelay(true)?;
        let accepting = accept(stream, &self.tls, &self.params.trusted);
        let Some(accepted) = self.cancel.run_until_cancelled(accepting).await else { return Ok(()) };
        let Accepted { stream, peer } = accepted?;
        let Some(peer) = peer else { return Err(io::ErrorKind::PermissionDenied.into()) };
        let chain = stream.get_ref().1.peer_certificates().unwrap_or_default();
        let access = Access::new(&self.params.cluster, &self.params.trusted, chain, &peer);
        let cancel = self.cancel.child_token();
        // The streams' tasks end when the connection does.
        let _guard = cancel.clone().drop_guard();
        let services = Services {
            access: Arc::new(access),
            view: self.params.view.clone(),
            limits: self.params.limits,
            cancel,
            streams: TaskTracker::new(),
        };
        let mut builder = auto::Builder::new(TokioExecutor::new());
        builder.http1().timer(TokioTimer::new()).header_read_timeout(HEADER_TIMEOUT);
        builder
            .http2()
            .timer(TokioTimer::new())
            .keep_alive_interval(KEEPALIVE_INTERVAL)
            .keep_alive_timeout(KEEPALIVE_TIMEOUT)
            .max_concurrent_streams(self.params.limits.streams);
        let service = service_fn(|request| answer(services.clone(), request));
        let connection = builder.serve_connection(TokioIo::new(stream), service);
        let mut connection = std::pin::pin!(connection);
        let ended = tokio::select! {
            ended = connection.as_mut() => ended,
            () = self.cancel.cancelled() => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        };
        ended.map_err(io::Error::other)
    }
}

/// One request: a call that is answered, a probe, or a refusal.
async fn answer(services: Services, request: Request<Incoming>) -> Result<Response<Body>, Infallible> {
    let path = request.uri().path();
    let grpc = request
        .headers()
        .get(header::CONTENT_TYPE)
        .is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc"));
    if !grpc {
        return Ok(probe(&services, request.method(), path));
    }
    match path {
        "/etcdserverpb.KV/Range" => {
            KvServer::new(services).max_decoding_message_size(REQUEST_BYTES).oneshot(request.map(Body::new)).await
        }
        "/etcdserverpb.Watch/Watch" => {
            WatchServer::new(services).max_decoding_message_size(REQUEST_BYTES).oneshot(request.map(Body::new)).await
        }
        "/etcdserverpb.Maintenance/Status" => {
            let server = MaintenanceServer::new(services).max_decoding_message_size(REQUEST_BYTES);
            server.oneshot(request.map(Body::new)).await
        }
        // Writes, leases, users, members, whatever there may be: etcd's answer to one who may not.
        _ => Ok(permission_denied().into_http()),
    }
}

/// The two things that etcd answers without gRPC.
fn probe(services: &Services, method: &Method, path: &str) -> Response<Body> {
    let status = services.view.status();
    let (code, text) = match (method, path) {
        (&Method::GET, "/version") => {
            let version = version(status.store.as_ref().map(|store| store.version.as_str()));
            let cluster = version.rsplit_once('.').map_or(version, |(minor, _)| minor);
            let text = format!(r#"{{"etcdserver":"{version}","etcdcluster":"{cluster}.0"}}"#);
            (StatusCode::OK, text)
        }
        (&Method::GET, "/health") if status.available => (StatusCode::OK, r#"{"health":"true"}"#.to_owned()),
        (&Method::GET, "/health") => (StatusCode::SERVICE_UNAVAILABLE, r#"{"health":"false"}"#.to_owned()),
        (_, "/version" | "/health") => (StatusCode::METHOD_NOT_ALLOWED, String::new()),
        _ => (StatusCode::NOT_FOUND, String::new()),
    };
    let mut response = Response::new(Body::new(text));
    *response.status_mut() = code;
    let json = header::HeaderValue::from_static("application/json");
    response.headers_mut().insert(header::CONTENT_TYPE, json);
    response
}
