//! The smallest HTTP service and client: one text, one connection each.

use std::net::{Ipv6Addr, SocketAddr};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use crate::failure::{Exit, Failure, Outcome};

/// A request's head is never longer here.
const MAX_HEAD: usize = 8192;

/// Serves `text` to everybody, for ever.
///
/// # Errors
/// When the port is taken.
pub async fn serve(port: u16, text: &str) -> Outcome {
    let listener = TcpListener::bind((Ipv6Addr::UNSPECIFIED, port)).await?;
    let body = format!("{text}\n");
    let answer = format!(
        "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    );
    let mut clients = tokio::task::JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let (stream, _) = accepted?;
                clients.spawn(answer_one(stream, answer.clone()));
            }
            // Reaps those that are done; what went wrong with one client is that client's affair.
            Some(_) = clients.join_next() => {}
        }
    }
}

async fn answer_one(mut stream: TcpStream, answer: String) {
    let mut head = Vec::new();
    let mut chunk = [0_u8; 1024];
    while !head.windows(4).any(|w| w == b"\r\n\r\n") && head.len() < MAX_HEAD {
        match tokio::time::timeout(Duration::from_secs(5), stream.read(&mut chunk)).await {
            Ok(Ok(n)) if n > 0 => head.extend_from_slice(chunk.get(..n).unwrap_or_default()),
            _ => return,
        }
    }
    drop(stream.write_all(answer.as_bytes()).await);
    drop(stream.shutdown().await);
}

/// Fetches a few times, each over a connection of its own, and prints each answer's text on a line.
///
/// # Errors
/// When one fails; exit code 4 where the connection is refused or does not come about.
pub async fn get(address: SocketAddr, count: u32, within_ms: u64) -> Outcome {
    for _ in 0..count {
        let fetch = fetch(address);
        let text = tokio::time::timeout(Duration::from_millis(within_ms), fetch)
            .await
            .map_err(|_| Failure::new(format!("{address} does not answer within {within_ms} ms")).exit(Exit::No))?
            .map_err(|e| Failure::new(format!("{address}: {e}")).exit(Exit::No))?;
        crate::output::print(&text);
    }
    Ok(())
}

async fn fetch(address: SocketAddr) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(address).await?;
    stream.write_all(format!("GET / HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n").as_bytes()).await?;
    let mut answer = Vec::new();
    stream.take(64 << 10).read_to_end(&mut answer).await?;
    let answer = String::from_utf8_lossy(&answer);
    let text = answer.split_once("\r\n\r\n").map(|(_, body)| body.trim_end().to_owned());
    text.ok_or_else(|| std::io::Error::new(std::io::ErrorKind::InvalidData, "not an HTTP answer"))
}
