//! The `etcd` process that the API starts for itself.
//!
//! One per data directory: a lock file is taken before etcd starts and held as long as it may run. etcd listens on
//! loopback only, on ports that are free when it starts, and talks TLS with certificates of an authority of its own that
//! nobody else has. It dies with the API, is started again when it dies alone, and is stopped cleanly with the API.

mod files;
mod process;

use std::fs::File;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use nix::sys::signal::Signal;
use rustls::ClientConfig;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use self::files::{Files, file_error};
use self::process::{Process, Start, find};
use super::client::Store;
use super::kv::KeyRange;
use crate::tls::Connector;
use fabric_core::backoff::Backoff;

/// Settings of the child.
#[derive(Debug, Clone)]
pub struct EtcdChildConfig {
    /// The executable; a bare name is looked up in `PATH`.
    pub binary: PathBuf,
    /// etcd's data, its certificates, its log and the lock file. Made with mode 0700.
    pub directory: PathBuf,
    /// Bytes that its database may have.
    pub quota_bytes: u64,
    /// How long superseded values are kept for readers that were away.
    pub history: Duration,
    /// How long it may take until it answers, at a start.
    pub start_timeout: Duration,
    /// How long to wait for another holder of the data directory to go.
    pub lock_timeout: Duration,
}

impl EtcdChildConfig {
    /// The defaults: 2 GiB, ten minutes of history, half a minute to start.
    pub fn new(directory: PathBuf) -> Self {
        Self {
            binary: PathBuf::from("etcd"),
            directory,
            quota_bytes: 2 << 30,
            history: Duration::from_mins(10),
            start_timeout: Duration::from_secs(30),
            lock_timeout: Duration::from_secs(5),
        }
    }
}

/// Why etcd does not run.
#[derive(Debug, thiserror::Error)]
pub enum EtcdChildError {
    /// There is no such executable.
    #[error("etcd executable {binary} was not found: install etcd (Debian: etcd-server), or name it with --etcd-binary, or use --etcd-endpoints", binary = binary.display())]
    BinaryMissing {
        /// What was looked for.
        binary: PathBuf,
    },
    /// Another process uses the data directory.
    #[error("etcd data directory {directory} is in use by process {holder}", directory = directory.display())]
    Locked {
        /// Which directory.
        directory: PathBuf,
        /// What the lock file says of its holder.
        holder: String,
    },
    /// A port was taken while etcd started, again and again.
    #[error("etcd found its ports taken {attempts} times: {detail}")]
    PortTaken {
        /// How often.
        attempts: u32,
        /// What etcd said.
        detail: String,
    },
    /// The disk of the data directory is full.
    #[error("no space left for etcd in {directory}", directory = directory.display())]
    DiskFull {
        /// Which directory.
        directory: PathBuf,
    },
    /// It ended by itself while starting.
    #[error("etcd ended with {status} while starting: {detail} (log: {log})", log = log.display())]
    Exited {
        /// Its exit status.
        status: String,
        /// Its last words.
        detail: String,
        /// Its log file.
        log: PathBuf,
    },
    /// It runs but does not answer.
    #[error("etcd did not answer within {timeout:?}: {detail} (log: {log})", log = log.display())]
    NotReady {
        /// How long was waited.
        timeout: Duration,
        /// What the last try said.
        detail: String,
        /// Its log file.
        log: PathBuf,
    },
    /// A file cannot be made.
    #[error("etcd's {what} in {directory}", directory = directory.display())]
    File {
        /// Which.
        what: &'static str,
        /// Where.
        directory: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// It cannot be started.
    #[error("etcd executable {binary}", binary = binary.display())]
    Start {
        /// Which.
        binary: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// A name in its certificates is not allowed (never).
    #[error("etcd's certificates: name not allowed")]
    Names,
    /// Its certificates cannot be made.
    #[error("etcd's certificates")]
    Certificates(#[source] crate::pki::AuthorityError),
    /// A certificate cannot be issued.
    #[error("etcd's certificates")]
    Issue(#[source] crate::pki::IssueError),
    /// TLS cannot be set up with them.
    #[error("etcd's certificates")]
    Tls(#[source] rustls::Error),
}

/// How the child is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ChildStatus {
    /// It answers.
    Running {
        /// Its process id.
        pid: u32,
    },
    /// It died and is being started again.
    Restarting {
        /// What became of the last one.
        reason: String,
    },
    /// It was stopped.
    Stopped,
}

/// A running etcd.
#[derive(Debug)]
pub struct EtcdChild {
    launcher: Launcher,
    process: Process,
    connector: Connector,
    status: watch::Sender<ChildStatus>,
}

impl EtcdChild {
    /// Takes the lock, starts etcd and waits until it answers.
    ///
    /// # Errors
    /// When it does not come up; nothing is left running then.
    pub async fn start(config: EtcdChildConfig) -> Result<Self, EtcdChildError> {
        let missing = || EtcdChildError::BinaryMissing { binary: config.binary.clone() };
        let binary = find(&config.binary).ok_or_else(missing)?;
        let files = Files::create(&config)?;
        let lock = files.lock(config.lock_timeout).await?;
        let tls = files.certificates()?;
        let mut launcher = Launcher { config, binary, files, lock, tls, ports: None };
        let (process, address) = launcher.launch().await?;
        let connector = Connector::new(&[address], Arc::clone(&launcher.tls));
        let status = watch::channel(ChildStatus::Running { pid: process.pid() }).0;
        Ok(Self { launcher, process, connector, status })
    }

    /// A client of it; goes on working when etcd is started again on other ports.
    pub fn store(&self) -> Store {
        Store::new(&self.connector)
    }

    /// Where it listens now, `ip:port`.
    pub fn addresses(&self) -> Vec<String> {
        self.connector.addresses()
    }

    /// How it is, and changes of that.
    pub fn status(&self) -> watch::Receiver<ChildStatus> {
        self.status.subscribe()
    }

    /// Keeps it running until cancelled: starts it again with back-off when it dies. Then stops it cleanly and lets go
    /// of the lock.
    ///
    /// Dropping the future kills etcd.
    pub async fn run(mut self, cancel: CancellationToken) {
        let mut backoff = Backoff::new(RESTART_FIRST, RESTART_LONGEST);
        loop {
            let began = Instant::now();
            let ended = tokio::select! {
                ended = self.process.exited() => ended,
                () = cancel.cancelled() => break,
            };
            if began.elapsed() > HEALTHY_AFTER {
                backoff.reset();
            }
            tracing::error!(status = %ended, "etcd died; starting it again");
            self.status.send_replace(ChildStatus::Restarting { reason: format!("etcd ended with {ended}") });
            tokio::select! {
                process = self.restart(&mut backoff) => self.process = process,
                () = cancel.cancelled() => break,
            }
            self.status.send_replace(ChildStatus::Running { pid: self.process.pid() });
        }
        self.stop().await;
    }

    /// Tries until it runs.
    async fn restart(&mut self, backoff: &mut Backoff) -> Process {
        loop {
            tokio::time::sleep(backoff.next(rand::random())).await;
            match self.launcher.launch().await {
                Ok((process, address)) => {
                    tracing::info!(pid = process.pid(), "etcd runs again");
                    self.connector.replace(&[address], Arc::clone(&self.launcher.tls));
                    return process;
                }
                Err(error) => {
                    tracing::error!(%error, "etcd does not start");
                    self.status.send_replace(ChildStatus::Restarting { reason: error.to_string() });
                }
            }
        }
    }

    async fn stop(self) {
        self.process.signal(Signal::SIGTERM);
        if tokio::time::timeout(STOP_TIMEOUT, self.process.exited()).await.is_err() {
            tracing::warn!(pid = self.process.pid(), "etcd does not stop; killing it");
            self.process.signal(Signal::SIGKILL);
            self.process.exited().await;
        }
        self.status.send_replace(ChildStatus::Stopped);
    }
}

const RESTART_FIRST: Duration = Duration::from_millis(50);
const RESTART_LONGEST: Duration = Duration::from_secs(10);
/// A run this long was a good one: the next restart is quick again.
const HEALTHY_AFTER: Duration = Duration::from_mins(1);
const STOP_TIMEOUT: Duration = Duration::from_secs(10);
/// Between two tries whether it answers.
const READY_INTERVAL: Duration = Duration::from_millis(20);
/// A port that was free may be taken until etcd binds it.
const PORT_ATTEMPTS: u32 = 5;

/// What every start needs.
#[derive(Debug)]
struct Launcher {
    config: EtcdChildConfig,
    binary: PathBuf,
    files: Files,
    lock: File,
    tls: Arc<ClientConfig>,
    /// Those of the last start: readers of its log find the same.
    ports: Option<[u16; 2]>,
}

impl Launcher {
    async fn launch(&mut self) -> Result<(Process, SocketAddr), EtcdChildError> {
        let mut attempts = 0;
        loop {
            attempts += 1;
            let ports = match self.ports.take() {
                Some(ports) => ports,
                None => free_ports().map_err(|source| file_error("ports", &self.files.directory, source))?,
            };
            match self.launch_on(ports).await {
                Ok(process) => {
                    self.ports = Some(ports);
                    return Ok((process, SocketAddr::from((Ipv4Addr::LOCALHOST, ports[0]))));
                }
                Err(EtcdChildError::Exited { detail, .. }) if detail.contains(PORT_TAKEN) => {
                    if attempts == PORT_ATTEMPTS {
                        return Err(EtcdChildError::PortTaken { attempts, detail });
                    }
                }
                Err(error) => return Err(error),
            }
        }
    }

    async fn launch_on(&self, ports: [u16; 2]) -> Result<Process, EtcdChildError> {
        let (log, log_start) = self.files.open_log()?;
        let lock = self.lock.try_clone().map_err(|source| file_error("lock file", &self.files.directory, source))?;
        let arguments = arguments(&self.config, &self.files, ports);
        let process = Process::start(Start { binary: self.binary.clone(), arguments, lock, log })
            .await
            .map_err(|source| EtcdChildError::Start { binary: self.binary.clone(), source })?;
        tokio::select! {
            ready = self.ready(ports[0]) => ready.map(|()| process),
            status = process.exited() => Err(self.why(status, log_start)),
        }
    }

    /// Asks until it answers a read that needs a leader.
    async fn ready(&self, port: u16) -> Result<(), EtcdChildError> {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let store =
            Store::new(&Connector::new(&[address], Arc::clone(&self.tls))).with_deadline(Duration::from_secs(2));
        let (timeout, begin) = (self.config.start_timeout, Instant::now());
        loop {
            let Err(error) = store.page(&KeyRange::key("fabric/ready"), 1, 0).await else { return Ok(()) };
            if begin.elapsed() > timeout {
                return Err(EtcdChildError::NotReady { timeout, detail: error.to_string(), log: self.files.log() });
            }
            tokio::time::sleep(READY_INTERVAL).await;
        }
    }

    fn why(&self, status: String, log_start: u64) -> EtcdChildError {
        let said = self.files.log_since(log_start);
        if said.contains("no space left on device") {
            return EtcdChildError::DiskFull { directory: self.files.directory.clone() };
        }
        EtcdChildError::Exited { status, detail: reason(&said), log: self.files.log() }
    }
}

const PORT_TAKEN: &str = "address already in use";

/// The line of etcd's last words that says most.
fn reason(log: &str) -> String {
    let tells = |line: &&str| {
        line.contains(PORT_TAKEN) || ["\"fatal\"", "\"panic\"", "panic:"].iter().any(|word| line.contains(word))
    };
    let line = log.lines().find(tells).or_else(|| log.lines().rfind(|line| !line.is_empty())).unwrap_or_default();
    line.chars().take(500).collect()
}

/// Two ports of the loopback that are free now.
fn free_ports() -> io::Result<[u16; 2]> {
    let (first, second) = (TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?, TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?);
    Ok([first.local_addr()?.port(), second.local_addr()?.port()])
}

fn arguments(config: &EtcdChildConfig, files: &Files, [client, peer]: [u16; 2]) -> Vec<String> {
    let (client, peer) = (format!("https://127.0.0.1:{client}"), format!("https://127.0.0.1:{peer}"));
    let path = |path: PathBuf| path.to_string_lossy().into_owned();
    let (certificate, key, authority) = (path(files.certificate()), path(files.key()), path(files.authority()));
    let pairs = [
        ("name", "fabric".to_owned()),
        ("data-dir", path(files.data())),
        ("listen-client-urls", client.clone()),
        ("advertise-client-urls", client),
        ("listen-peer-urls", peer.clone()),
        ("initial-advertise-peer-urls", peer.clone()),
        ("initial-cluster", format!("fabric={peer}")),
        // Only counts at the first start: makes the cluster id unique in the world.
        ("initial-cluster-token", hex::encode(rand::random::<[u8; 16]>())),
        ("cert-file", certificate.clone()),
        ("key-file", key.clone()),
        ("client-cert-auth", "true".to_owned()),
        ("trusted-ca-file", authority.clone()),
        ("peer-cert-file", certificate),
        ("peer-key-file", key),
        ("peer-client-cert-auth", "true".to_owned()),
        ("peer-trusted-ca-file", authority),
        ("auto-compaction-mode", "periodic".to_owned()),
        ("auto-compaction-retention", format!("{}s", config.history.as_secs())),
        ("quota-backend-bytes", config.quota_bytes.to_string()),
        // One member elects itself: waiting a second for rivals is of no use.
        ("heartbeat-interval", "20".to_owned()),
        ("election-timeout", "200".to_owned()),
        ("logger", "zap".to_owned()),
    ];
    pairs.into_iter().map(|(name, value)| format!("--{name}={value}")).collect()
}

#[cfg(test)]
mod tests;
