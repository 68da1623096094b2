//! The `traffic` tool in workloads: echo servers, counted pings, checked streams.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result};
use fabric_cli::lab::{Process, wait_until};
use serde::Deserialize;

use crate::mesh::Workload;

/// The port that echo servers listen on.
pub const PORT: u16 = 7007;

/// What a counted ping saw.
#[derive(Debug, Deserialize)]
pub struct Pinged {
    /// Datagrams sent.
    pub sent: u64,
    /// That came back.
    pub received: u64,
    /// That did not.
    pub lost: u64,
    /// Longest run of lost ones, as time.
    pub longest_gap_ms: u64,
}

/// The tool lies beside the tests' own executable.
///
/// # Errors
/// When it was not built.
pub fn tool() -> Result<PathBuf> {
    let own = std::env::current_exe()?;
    let folder = own.parent().and_then(|p| p.parent()).context("no folder above the test")?;
    let tool = folder.join("traffic");
    anyhow::ensure!(tool.exists(), "{} is missing: cargo build --release -p fabric-tests", tool.display());
    Ok(tool)
}

/// Starts an echo server in a workload and waits until it listens.
///
/// # Errors
/// When it does not come up.
pub fn echo(workload: &Workload<'_>) -> Result<Process> {
    let process = start(workload, &["echo", "--port", &PORT.to_string()])?;
    wait_until(Duration::from_secs(5), "the echo server listens", || {
        Ok(process.output()?.contains("ready").then_some(()))
    })?;
    Ok(process)
}

/// Starts counted UDP pings.
///
/// # Errors
/// When they cannot be started.
pub fn ping(from: &Workload<'_>, to: &str, rate: u32, seconds: f64) -> Result<Process> {
    let (to, rate, seconds) = (target(to), rate.to_string(), seconds.to_string());
    start(from, &["ping", "--to", &to, "--rate", &rate, "--seconds", &seconds])
}

/// The same with datagrams of a size.
///
/// # Errors
/// When they cannot be started.
pub fn ping_sized(from: &Workload<'_>, to: &str, rate: u32, seconds: f64, size: usize) -> Result<Process> {
    let (to, rate, seconds, size) = (target(to), rate.to_string(), seconds.to_string(), size.to_string());
    start(from, &["ping", "--to", &to, "--rate", &rate, "--seconds", &seconds, "--size", &size])
}

/// What pings saw, once they end.
///
/// # Errors
/// When they do not end in time.
pub fn pinged(process: Process, within: Duration) -> Result<Pinged> {
    let said = process.finish(within)?;
    serde_json::from_str(&said).with_context(|| format!("not a report: {said}"))
}

/// Starts a TCP connection that must live so long.
///
/// # Errors
/// When it cannot be started.
pub fn stream(from: &Workload<'_>, to: &str, seconds: f64) -> Result<Process> {
    start(from, &["stream", "--to", &target(to), "--seconds", &seconds.to_string()])
}

/// Sends bytes there and back over TCP and checks each.
///
/// # Errors
/// When one is lost or wrong.
pub fn transfer(from: &Workload<'_>, to: &str, bytes: usize) -> Result<()> {
    let process = start(from, &["transfer", "--to", &target(to), "--bytes", &bytes.to_string()])?;
    process.finish(Duration::from_secs(30)).map(drop).with_context(|| format!("{bytes} bytes to {to}"))
}

fn start(workload: &Workload<'_>, args: &[&str]) -> Result<Process> {
    use std::sync::atomic::{AtomicU32, Ordering};
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let what = format!("traffic-{}", NUMBER.fetch_add(1, Ordering::Relaxed));
    workload.node.start_in(&workload.namespace, &what, &tool()?.display().to_string(), args)
}

fn target(address: &str) -> String {
    if address.contains(':') { format!("[{address}]:{PORT}") } else { format!("{address}:{PORT}") }
}
