//! Connections of the API's port: TLS, and who is at the other end.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures::{Stream, StreamExt as _};
use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::server::TlsStream;
use tonic::transport::server::Connected;

use crate::tls::{self, PeerIdentity, TrustedAuthorities};

/// Handshakes at once; more wait in the listener's queue.
const HANDSHAKES: usize = 256;

/// Who is at the other end, as calls find it in their extensions.
#[derive(Debug, Clone)]
pub struct Caller {
    /// Who the certificate says it is; `None` = showed none.
    pub identity: Option<PeerIdentity>,
    /// Where it calls from.
    pub address: Option<SocketAddr>,
}

/// An accepted connection.
#[derive(Debug)]
pub struct Connection {
    stream: TlsStream<TcpStream>,
    caller: Caller,
}

impl Connected for Connection {
    type ConnectInfo = Caller;

    fn connect_info(&self) -> Caller {
        self.caller.clone()
    }
}

impl AsyncRead for Connection {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

/// Accepts connections for ever. One that does not get through its handshake is nobody else's trouble.
pub fn incoming(
    listener: TcpListener,
    config: Arc<ServerConfig>,
    trusted: TrustedAuthorities,
) -> impl Stream<Item = io::Result<Connection>> + Send {
    let sockets = futures::stream::unfold(listener, |listener| async move {
        loop {
            match listener.accept().await {
                Ok((stream, _)) => return Some((stream, listener)),
                Err(error) => {
                    // Out of file descriptors, or a connection that was gone before it was taken: neither ends the
                    // listener. The pause keeps the former from taking a whole core.
                    tracing::debug!(%error, "accept");
                    tokio::time::sleep(std::time::Duration::from_millis(20)).await;
                }
            }
        }
    });
    sockets
        .map(move |stream| handshake(stream, Arc::clone(&config), trusted.clone()))
        .buffer_unordered(HANDSHAKES)
        .filter_map(|connection| async move { connection.map(Ok) })
}

async fn handshake(stream: TcpStream, config: Arc<ServerConfig>, trusted: TrustedAuthorities) -> Option<Connection> {
    let address = stream.peer_addr().ok();
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "TCP_NODELAY");
    }
    match tls::accept(stream, &config, &trusted).await {
        Ok(accepted) => {
            let caller = Caller { identity: accepted.peer, address };
            Some(Connection { stream: accepted.stream, caller })
        }
        Err(error) => {
            tracing::debug!(?address, %error, "handshake refused");
            None
        }
    }
}
