//! Channels to the servers that commands talk to, and the few conversions that several commands share.

use std::path::Path;
use std::time::Duration;

use clustermesh_api::pki::{Leaf, Pin, Role};
use clustermesh_api::tls::{
    ALPN_H2, ClientIdentity, Connector, ServerTrust, TlsFault, client_config, mesh_channel, tls_fault,
};
use clustermesh_api_proto::fabric::v1::NodeKind;
use clustermesh_api_proto::fabric::v1::admin_client::AdminClient;
use clustermesh_api_proto::fabric::v1::enrol_client::EnrolClient;
use clustermesh_api_proto::fabric::v1::local_client::LocalClient;
use hyper_util::rt::TokioIo;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use tonic::transport::{Channel, Endpoint, Uri};

use crate::context::{self, Context, Contexts};
use crate::failure::Failure;
use fabric_core::error_code;

/// An administrator's client.
pub type Admin = AdminClient<Channel>;

const CONNECT_WITHIN: Duration = Duration::from_secs(5);

/// Lists of a large mesh are longer than tonic's default of 4 MiB.
const MAX_ANSWER_BYTES: usize = 256 << 20;

/// The API of the picked context's cluster.
///
/// # Errors
/// When there is no such context, or its certificates do not parse.
pub async fn admin(context: Option<&str>) -> Result<Admin, Failure> {
    let all = Contexts::load(&context::path())?;
    admin_of(all.pick(context)?).await
}

/// The API of a context's cluster.
///
/// # Errors
/// When it cannot be reached, or is not who it should be.
pub async fn admin_of(context: &Context) -> Result<Admin, Failure> {
    Ok(AdminClient::new(channel_of(context).await?).max_decoding_message_size(MAX_ANSWER_BYTES))
}

/// A channel to the picked context's API, for the services beside administration.
///
/// # Errors
/// As [`admin`].
pub async fn admin_channel(context: Option<&str>) -> Result<Channel, Failure> {
    let all = Contexts::load(&context::path())?;
    channel_of(all.pick(context)?).await
}

async fn channel_of(context: &Context) -> Result<Channel, Failure> {
    let bad = |what: &str, e: &dyn std::fmt::Display| {
        Failure::usage(format!("context {}: {what}: {e}", context.name)).code(error_code::NO_CONTEXT)
    };
    let authority =
        CertificateDer::from_pem_slice(context.authority_pem.as_bytes()).map_err(|e| bad("authority", &e))?;
    let leaf = Leaf::from_pem(&context.certificate_pem, &context.key_pem).map_err(|e| bad("certificate", &e))?;
    let pin = Pin::of_certificate(&authority).map_err(|e| bad("authority", &e))?;
    let cluster = context.name.parse().ok();
    let trust = ServerTrust { pin, authority: Some(authority), role: Some(Role::Api), cluster };
    let tls = client_config(&trust, &ClientIdentity::Leaf(&leaf), &[ALPN_H2]).map_err(|e| bad("certificate", &e))?;
    channel(&context.servers, tls).await
}

/// The two calls that work without a certificate, at a server that is known by its authority's pin alone.
///
/// # Errors
/// When it cannot be reached, or is not who it should be.
pub async fn enrol(servers: &[String], pin: Pin) -> Result<EnrolClient<Channel>, Failure> {
    let tls = client_config(&ServerTrust::pinned_api(pin), &ClientIdentity::Anonymous, &[ALPN_H2])
        .map_err(|e| Failure::new(e.to_string()))?;
    Ok(EnrolClient::new(channel(servers, tls).await?))
}

async fn channel(servers: &[String], tls: std::sync::Arc<rustls::ClientConfig>) -> Result<Channel, Failure> {
    let connector = Connector::with_hosts(servers.to_vec(), tls);
    // Once by hand, for an error that says what is wrong; the channel's own errors are less clear.
    connector.connect(CONNECT_WITHIN).await.map_err(|e| unreachable(&servers.join(", "), &e))?;
    Ok(mesh_channel(&connector, CONNECT_WITHIN))
}

fn unreachable(servers: &str, error: &std::io::Error) -> Failure {
    let (code, why) = match tls_fault(error) {
        Some(fault @ (TlsFault::NotYetValid { .. } | TlsFault::Expired { .. })) => {
            (error_code::CLOCK_WRONG, fault.to_string())
        }
        Some(fault) => (error_code::WRONG_AUTHORITY, fault.to_string()),
        None => (error_code::API_UNREACHABLE, error.to_string()),
    };
    let message = format!("cannot reach the API at {servers}: {why}");
    Failure::new(message).code(code).next(format!("fabric explain {code}"))
}

/// The agent of this machine.
///
/// # Errors
/// When it does not run, or we may not talk to it.
pub async fn local(run_dir: &Path) -> Result<LocalClient<Channel>, Failure> {
    let socket = run_dir.join("agent.sock");
    let shown = socket.display().to_string();
    let path = socket.clone();
    let connect = tower::service_fn(move |_: Uri| {
        let path = path.clone();
        async move { tokio::net::UnixStream::connect(path).await.map(TokioIo::new) }
    });
    let channel = Endpoint::from_static("http://agent").connect_with_connector(connect).await.map_err(|e| {
        let why = std::error::Error::source(&e).map_or_else(|| e.to_string(), ToString::to_string);
        Failure::new(format!("cannot reach the agent at {shown}: {why}"))
            .code(error_code::AGENT_UNREACHABLE)
            .next("is it running? is this root? see: fabric explain FAB-5104")
    })?;
    Ok(LocalClient::new(channel))
}

/// How people call the kinds of nodes.
pub fn kind_name(kind: NodeKind) -> &'static str {
    match kind {
        NodeKind::Unspecified => "unknown",
        NodeKind::Node => "node",
        NodeKind::Machine => "machine",
    }
}

/// Keys are shown as WireGuard shows them.
pub fn base64(bytes: &[u8]) -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.encode(bytes)
}
