//! The child's directory: lock, certificates, log.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::net::Ipv4Addr;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use fabric_core::names::{ClusterName, NodeName};
use rustls::ClientConfig;

use super::{EtcdChildConfig, EtcdChildError};
use crate::pki::{Authority, KeyMaterial, Leaf, LeafRequest, Role, Validity, write_secret};
use crate::tls::{ALPN_H2, ClientIdentity, ServerTrust, client_config};

/// A log that has grown past this is put aside at the next start.
const LOG_BYTES: u64 = 8 << 20;
/// How much of the log's end is read for a reason.
const TAIL_BYTES: u64 = 16 << 10;

/// Paths of the files that etcd is told of.
#[derive(Debug, Clone)]
pub(super) struct Files {
    pub(super) directory: PathBuf,
}

impl Files {
    pub(super) fn create(config: &EtcdChildConfig) -> Result<Self, EtcdChildError> {
        let directory = config.directory.clone();
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&directory)
            .map_err(|source| file_error("directory", &directory, source))?;
        Ok(Self { directory })
    }

    pub(super) fn data(&self) -> PathBuf {
        self.directory.join("data")
    }

    pub(super) fn log(&self) -> PathBuf {
        self.directory.join("etcd.log")
    }

    pub(super) fn certificate(&self) -> PathBuf {
        self.directory.join("server.crt")
    }

    pub(super) fn key(&self) -> PathBuf {
        self.directory.join("server.key")
    }

    pub(super) fn authority(&self) -> PathBuf {
        self.directory.join("authority.crt")
    }

    /// Takes the lock, or says who has it. Whoever holds a copy of the file holds the lock.
    pub(super) async fn lock(&self, patience: Duration) -> Result<File, EtcdChildError> {
        let path = self.directory.join("lock");
        let failed = |source| file_error("lock file", &self.directory, source);
        let open = OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(&path);
        let mut file = open.map_err(failed)?;
        let deadline = tokio::time::Instant::now() + patience;
        loop {
            match file.try_lock() {
                Ok(()) => break,
                // The etcd of an API that was killed a moment ago may be dying just now.
                Err(TryLockError::WouldBlock) if tokio::time::Instant::now() < deadline => {
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
                Err(TryLockError::WouldBlock) => {
                    let holder = fs::read_to_string(&path).unwrap_or_default().trim().to_owned();
                    return Err(EtcdChildError::Locked { directory: self.directory.clone(), holder });
                }
                Err(TryLockError::Error(source)) => return Err(failed(source)),
            }
        }
        file.set_len(0)
            .and_then(|()| file.rewind())
            .and_then(|()| writeln!(file, "{}", std::process::id()))
            .map_err(failed)?;
        Ok(file)
    }

    /// Makes etcd's certificate and returns the configuration of its only client.
    ///
    /// They are good for a century, from 1971 on: both ends are this machine, and its clock may be wrong.
    pub(super) fn certificates(&self) -> Result<Arc<ClientConfig>, EtcdChildError> {
        let validity = Validity {
            now: SystemTime::UNIX_EPOCH + Duration::from_hours(365 * 24),
            lifetime: Duration::from_hours(100 * 365 * 24),
        };
        let cluster = ClusterName::new("etcd").map_err(|_| EtcdChildError::Names)?;
        let authority =
            Authority::open_or_create_valid(&self.directory, &cluster, validity).map_err(|error| match error {
                crate::pki::AuthorityError::File { source, .. } => file_error("authority", &self.directory, source),
                error => EtcdChildError::Certificates(error),
            })?;
        let issue = |role: Role| -> Result<Leaf, EtcdChildError> {
            let request = LeafRequest { role, addresses: vec![Ipv4Addr::LOCALHOST.into()], validity };
            authority.issue(&request, &KeyMaterial::Generate).map_err(EtcdChildError::Issue)
        };
        let server = issue(Role::Api)?;
        let secret = |what, path: &Path, text: &str| {
            write_secret(path, text.as_bytes()).map_err(|source| file_error(what, &self.directory, source))
        };
        secret("certificate", &self.certificate(), &server.chain_pem)?;
        secret("key", &self.key(), server.key_pem().unwrap_or_default())?;
        let client = issue(Role::Node(NodeName::new("api").map_err(|_| EtcdChildError::Names)?))?;
        let trust = ServerTrust {
            pin: authority.pin(),
            authority: Some(authority.certificate().clone()),
            role: Some(Role::Api),
            cluster: Some(cluster),
        };
        client_config(&trust, &ClientIdentity::Leaf(&client), &[ALPN_H2]).map_err(EtcdChildError::Tls)
    }

    /// Opens the log for appending; its present end.
    pub(super) fn open_log(&self) -> Result<(File, u64), EtcdChildError> {
        let path = self.log();
        let open = || -> io::Result<(File, u64)> {
            if fs::metadata(&path).is_ok_and(|log| log.len() > LOG_BYTES) {
                fs::rename(&path, path.with_extension("log.1"))?;
            }
            let file = OpenOptions::new().append(true).create(true).mode(0o600).open(&path)?;
            let end = file.metadata()?.len();
            Ok((file, end))
        };
        open().map_err(|source| file_error("log", &self.directory, source))
    }

    /// What was logged since `from`, at most the last few KiB.
    pub(super) fn log_since(&self, from: u64) -> String {
        let read = || -> io::Result<String> {
            let mut file = File::open(self.log())?;
            let end = file.metadata()?.len();
            file.seek(SeekFrom::Start(from.max(end.saturating_sub(TAIL_BYTES))))?;
            let mut text = Vec::new();
            file.take(TAIL_BYTES).read_to_end(&mut text)?;
            Ok(String::from_utf8_lossy(&text).into_owned())
        };
        read().unwrap_or_default()
    }
}

pub(super) fn file_error(what: &'static str, directory: &Path, source: io::Error) -> EtcdChildError {
    let directory = directory.to_owned();
    match source.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => EtcdChildError::DiskFull { directory },
        _ => EtcdChildError::File { what, directory, source },
    }
}
