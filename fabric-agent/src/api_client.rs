//! The agent's side of the conversation with its cluster's API: one channel that heals itself.
//!
//! The channel connects to any of the API's addresses; the server is known by its cluster's authority and by the name
//! in its certificate, never by its address. What is said over the channel is the controllers' business.

mod connector;
mod credentials;
mod tls;

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use clustermesh_api_proto::fabric::v1::agent_api_client::AgentApiClient;
use tonic::transport::{Channel, Endpoint};

pub(crate) use credentials::{Credentials, CredentialsError};
pub(crate) use tls::ServerName;

/// How often an idle connection is probed, and how long the answer may take: a dead peer is noticed within ten seconds.
const KEEPALIVE: Duration = Duration::from_secs(3);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(5);

/// Largest message taken from the API.
const MAX_MESSAGE_BYTES: usize = 64 << 20;

/// The channel to the API, and what it is built from.
#[derive(Debug, Clone)]
pub(crate) struct ApiClient {
    shared: Arc<connector::Shared>,
    channel: Channel,
}

impl ApiClient {
    /// Makes a client; nothing is connected before the first call.
    pub(crate) fn new(
        endpoints: Vec<SocketAddr>,
        server: ServerName,
        credentials: &Credentials,
    ) -> Result<Self, rustls::Error> {
        let shared = Arc::new(connector::Shared {
            endpoints: Mutex::new(endpoints),
            tls: arc_swap::ArcSwap::from_pointee(tls::client_config(credentials, &server)?),
            server,
            last_error: Mutex::new(None),
        });
        let endpoint = Endpoint::from_static("http://api.fabric")
            .connect_timeout(Duration::from_secs(10))
            .http2_keep_alive_interval(KEEPALIVE)
            .keep_alive_timeout(KEEPALIVE_TIMEOUT)
            .keep_alive_while_idle(true);
        let channel = endpoint.connect_with_connector_lazy(connector::service(Arc::clone(&shared)));
        Ok(Self { shared, channel })
    }

    /// The typed client.
    pub(crate) fn agent_api(&self) -> AgentApiClient<Channel> {
        AgentApiClient::new(self.channel.clone()).max_decoding_message_size(MAX_MESSAGE_BYTES)
    }

    /// Uses another certificate from the next connection on.
    pub(crate) fn renew(&self, credentials: &Credentials) -> Result<(), rustls::Error> {
        self.shared.tls.store(Arc::new(tls::client_config(credentials, &self.shared.server)?));
        Ok(())
    }

    /// Learns the API's addresses; an empty list changes nothing.
    pub(crate) fn set_endpoints(&self, endpoints: Vec<SocketAddr>) {
        if endpoints.is_empty() {
            return;
        }
        *self.shared.endpoints.lock().unwrap_or_else(PoisonError::into_inner) = endpoints;
    }

    /// Why the newest attempt to connect failed; `None` after one that did not.
    pub(crate) fn last_error(&self) -> Option<String> {
        self.shared.last_error.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
