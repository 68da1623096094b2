//! Traffic whose loss can be counted: a UDP echo at a steady rate, a TCP stream whose every byte is checked.
//!
//! Each client prints one JSON object when it ends.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use clap::{Parser, Subcommand};
use serde_json::json;

#[derive(Parser)]
struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Echo UDP datagrams and TCP streams on a port, on all addresses.
    Echo {
        #[arg(long)]
        port: u16,
    },
    /// Send UDP datagrams at a steady rate; count which come back.
    Ping {
        #[arg(long)]
        to: SocketAddr,
        /// Datagrams a second.
        #[arg(long, default_value_t = 1000)]
        rate: u32,
        #[arg(long)]
        seconds: f64,
        /// Bytes of each, at least 8.
        #[arg(long, default_value_t = 64)]
        size: usize,
    },
    /// One TCP connection for as long as told: a counter there and back, each byte checked.
    Stream {
        #[arg(long)]
        to: SocketAddr,
        #[arg(long)]
        seconds: f64,
    },
    /// One TCP connection: so many bytes there and back, each checked.
    Transfer {
        #[arg(long)]
        to: SocketAddr,
        #[arg(long)]
        bytes: usize,
        /// How long it may take.
        #[arg(long, default_value_t = 20.0)]
        within: f64,
    },
}

fn main() -> Result<()> {
    match Args::parse().command {
        Command::Echo { port } => echo(port),
        Command::Ping { to, rate, seconds, size } => ping(to, rate, Duration::from_secs_f64(seconds), size),
        Command::Stream { to, seconds } => stream(to, Duration::from_secs_f64(seconds)),
        Command::Transfer { to, bytes, within } => transfer(to, bytes, Duration::from_secs_f64(within)),
    }
}

fn any(port: u16) -> SocketAddr {
    SocketAddr::from((std::net::Ipv6Addr::UNSPECIFIED, port))
}

fn echo(port: u16) -> Result<()> {
    let udp = UdpSocket::bind(any(port))?;
    let tcp = TcpListener::bind(any(port))?;
    std::thread::spawn(move || {
        let mut buffer = vec![0; 65_536];
        loop {
            // A datagram that cannot be returned counts as lost at its sender.
            if let Ok((size, from)) = udp.recv_from(&mut buffer) {
                drop(udp.send_to(buffer.get(..size).unwrap_or_default(), from));
            }
        }
    });
    report(&json!({"ready": true}));
    for connection in tcp.incoming() {
        let connection = connection?;
        std::thread::spawn(move || echo_stream(connection));
    }
    Ok(())
}

fn echo_stream(mut connection: TcpStream) {
    let mut buffer = vec![0; 65_536];
    while let Ok(size) = connection.read(&mut buffer) {
        if size == 0 || connection.write_all(buffer.get(..size).unwrap_or_default()).is_err() {
            return;
        }
    }
}

/// A sequence number in the first 8 bytes of each datagram.
fn ping(to: SocketAddr, rate: u32, lasting: Duration, size: usize) -> Result<()> {
    ensure!(size >= 8, "a datagram holds at least its number: 8 bytes");
    let socket = UdpSocket::bind(any(0)).or_else(|_| UdpSocket::bind("0.0.0.0:0"))?;
    let socket = if to.is_ipv4() { UdpSocket::bind("0.0.0.0:0")? } else { socket };
    socket.connect(to)?;
    socket.set_read_timeout(Some(Duration::from_millis(100)))?;
    let receiver = socket.try_clone()?;
    let done = Arc::new(AtomicU64::new(u64::MAX));
    let until = Arc::clone(&done);
    let counting = std::thread::spawn(move || count(&receiver, &until));
    let (mut sent, mut errors, started) = (0_u64, 0_u64, Instant::now());
    let mut payload = vec![0_u8; size];
    while started.elapsed() < lasting {
        let due = started + Duration::from_secs_f64(sent as f64 / f64::from(rate));
        if let Some(wait) = due.checked_duration_since(Instant::now()) {
            std::thread::sleep(wait);
        }
        payload[..8].copy_from_slice(&sent.to_be_bytes());
        // A refusal (ICMP, EPERM) is a loss like any other.
        errors += u64::from(socket.send(&payload).is_err());
        sent += 1;
    }
    done.store(sent, Ordering::Release);
    let seen = counting.join().map_err(|_| anyhow::anyhow!("the counter panicked"))?;
    let lost = (0..sent).filter(|n| !seen.contains_key(n)).count();
    report(&json!({
        "sent": sent, "received": seen.len(), "lost": lost, "send_errors": errors,
        "longest_gap_ms": longest_gap(&seen, sent, rate),
    }));
    Ok(())
}

type Seen = std::collections::BTreeMap<u64, Instant>;

fn count(socket: &UdpSocket, done: &AtomicU64) -> Seen {
    let mut seen = Seen::new();
    let mut buffer = [0_u8; 65_536];
    let mut ended: Option<Instant> = None;
    loop {
        if let Ok(size) = socket.recv(&mut buffer)
            && let Some(number) = buffer[..size].first_chunk::<8>()
        {
            seen.entry(u64::from_be_bytes(*number)).or_insert_with(Instant::now);
        }
        let total = done.load(Ordering::Acquire);
        if total != u64::MAX {
            let since = ended.get_or_insert_with(Instant::now).elapsed();
            if seen.len() as u64 == total || since > Duration::from_secs(2) {
                return seen;
            }
        }
    }
}

/// The longest run of numbers that did not come back, as time.
fn longest_gap(seen: &Seen, sent: u64, rate: u32) -> u64 {
    let (mut longest, mut last) = (0, None::<u64>);
    for number in seen.keys().copied().chain(std::iter::once(sent)) {
        longest = longest.max(number - last.map_or(0, |l| l + 1));
        last = Some(number);
    }
    longest * 1000 / u64::from(rate)
}

fn stream(to: SocketAddr, lasting: Duration) -> Result<()> {
    let mut connection = TcpStream::connect_timeout(&to, Duration::from_secs(5))?;
    connection.set_nodelay(true)?;
    connection.set_read_timeout(Some(Duration::from_secs(10)))?;
    let (started, mut rounds, mut slowest) = (Instant::now(), 0_u64, Duration::ZERO);
    while started.elapsed() < lasting {
        let before = Instant::now();
        connection.write_all(&rounds.to_be_bytes())?;
        let mut back = [0_u8; 8];
        connection.read_exact(&mut back).context("the connection did not live")?;
        ensure!(u64::from_be_bytes(back) == rounds, "round {rounds} came back as {back:?}");
        slowest = slowest.max(before.elapsed());
        rounds += 1;
        std::thread::sleep(Duration::from_millis(5));
    }
    report(&json!({"rounds": rounds, "slowest_ms": slowest.as_millis() as u64}));
    Ok(())
}

fn transfer(to: SocketAddr, bytes: usize, within: Duration) -> Result<()> {
    let connection = TcpStream::connect_timeout(&to, Duration::from_secs(5).min(within))?;
    connection.set_read_timeout(Some(within))?;
    let mut sender = connection.try_clone()?;
    let sending = std::thread::spawn(move || -> Result<()> {
        let content: Vec<u8> = (0..bytes).map(pattern).collect();
        sender.write_all(&content)?;
        sender.shutdown(std::net::Shutdown::Write)?;
        Ok(())
    });
    let started = Instant::now();
    let mut back = Vec::with_capacity(bytes);
    (&connection).read_to_end(&mut back)?;
    sending.join().map_err(|_| anyhow::anyhow!("the sender panicked"))??;
    ensure!(back.len() == bytes, "{} of {bytes} bytes came back", back.len());
    let wrong = back.iter().enumerate().position(|(at, byte)| *byte != pattern(at));
    ensure!(wrong.is_none(), "byte {wrong:?} is wrong");
    report(&json!({"bytes": bytes, "ms": started.elapsed().as_millis() as u64}));
    Ok(())
}

fn pattern(at: usize) -> u8 {
    (at.wrapping_mul(31) >> 3) as u8
}

fn report(value: &serde_json::Value) {
    println!("{value}");
}
