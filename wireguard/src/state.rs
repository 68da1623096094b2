//! The state file: what the engine needs to come back alone after it died. It holds secrets: mode 0600, replaced by an
//! atomic rename, wiped from memory when written.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::net::SocketAddr;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use nix::fcntl::{Flock, FlockArg};
use serde::{Deserialize, Serialize};
use zeroize::{Zeroize, Zeroizing};

use crate::allowed_ip::AllowedIp;
use crate::device::PeerConfig;
use crate::key::{self, PresharedKey, PrivateKey, PublicKey};
use crate::proto::model::Model;

/// The layout written; another one is refused.
const VERSION: u32 = 1;
/// A device with a hundred thousand prefixes takes a few megabytes.
const MAX_BYTES: u64 = 64 << 20;

/// Endpoints that differ from the configured ones because the peers moved.
pub(crate) type Learnt = BTreeMap<PublicKey, SocketAddr>;

/// Why the state file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// Reading, writing or locking it was refused.
    #[error("state file {path}")]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// Another engine uses it.
    #[error("state file {path} is in use by another engine")]
    InUse {
        /// The file.
        path: PathBuf,
    },
    /// It is no state file, or a part of it is out of range.
    #[error("state file {path} is damaged: {what}")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong. Never holds file contents.
        what: String,
    },
    /// Another version of this program wrote it.
    #[error("state file {path} has version {version}, this program knows {VERSION}")]
    Version {
        /// The file.
        path: PathBuf,
        /// The version found.
        version: u32,
    },
}

/// The file, locked for this process as long as the value lives.
#[derive(Debug)]
pub(crate) struct StateFile {
    path: PathBuf,
    _lock: Flock<File>,
}

impl StateFile {
    /// Locks the file, which need not exist yet.
    pub(crate) fn open(path: &Path) -> Result<Self, StateError> {
        let fail = |source| StateError::Io { path: path.to_owned(), source };
        let lock_path = beside(path, "lock");
        let lock = private_file(&lock_path, false).map_err(fail)?;
        let lock = Flock::lock(lock, FlockArg::LockExclusiveNonblock).map_err(|(_, errno)| match errno {
            nix::errno::Errno::EWOULDBLOCK => StateError::InUse { path: path.to_owned() },
            errno => fail(errno.into()),
        })?;
        Ok(Self { path: path.to_owned(), _lock: lock })
    }

    /// Reads configuration and learnt endpoints; a file that is not there is an empty configuration.
    pub(crate) fn load(&self) -> Result<(Model, Learnt), StateError> {
        let file = match File::open(&self.path) {
            Ok(file) => file,
            Err(err) if err.kind() == io::ErrorKind::NotFound => return Ok((Model::default(), Learnt::new())),
            Err(err) => return Err(self.fail(err)),
        };
        let mut bytes = Zeroizing::new(Vec::new());
        file.take(MAX_BYTES).read_to_end(&mut bytes).map_err(|err| self.fail(err))?;
        let damaged = |what: &str| StateError::Damaged { path: self.path.clone(), what: what.to_owned() };
        let version: VersionOnly = serde_json::from_slice(&bytes).map_err(|_| damaged("not JSON with a version"))?;
        if version.version != VERSION {
            return Err(StateError::Version { path: self.path.clone(), version: version.version });
        }
        // The parser's message may quote a value; only the place is passed on.
        let stored: Stored = serde_json::from_slice(&bytes)
            .map_err(|err| damaged(&format!("line {} column {}", err.line(), err.column())))?;
        restore(&stored).map_err(damaged)
    }

    /// Replaces the file's contents.
    pub(crate) fn save(&self, model: &Model, learnt: &Learnt) -> Result<(), StateError> {
        let stored = store(model, learnt);
        let mut bytes = Zeroizing::new(Vec::with_capacity(4096 + 512 * stored.peers.len()));
        serde_json::to_writer_pretty(&mut *bytes, &stored).map_err(|err| self.fail(err.into()))?;
        let fresh = beside(&self.path, "new");
        let write = || {
            let mut file = private_file(&fresh, true)?;
            file.write_all(&bytes)?;
            file.sync_data()?;
            fs::rename(&fresh, &self.path)
        };
        write().map_err(|source| {
            // Half a file is of no use to anybody.
            let _ = fs::remove_file(&fresh);
            self.fail(source)
        })
    }

    fn fail(&self, source: io::Error) -> StateError {
        StateError::Io { path: self.path.clone(), source }
    }
}

fn beside(path: &Path, extension: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".");
    name.push(extension);
    name.into()
}

fn private_file(path: &Path, truncate: bool) -> io::Result<File> {
    OpenOptions::new().write(true).create(true).truncate(truncate).mode(0o600).open(path)
}

#[derive(Deserialize)]
struct VersionOnly {
    version: u32,
}

/// The layout of the file. Private to this module: it holds secrets as text.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Stored {
    version: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    private_key: Option<SecretText>,
    listen_port: u16,
    fwmark: u32,
    peers: Vec<StoredPeer>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct StoredPeer {
    public_key: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    preshared_key: Option<SecretText>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    endpoint: Option<SocketAddr>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    learnt_endpoint: Option<SocketAddr>,
    #[serde(default, skip_serializing_if = "is_zero")]
    persistent_keepalive: u16,
    allowed_ips: Vec<String>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_zero(number: &u16) -> bool {
    *number == 0
}

/// Text that wipes itself.
#[derive(Serialize, Deserialize)]
#[serde(transparent)]
struct SecretText(String);

impl Drop for SecretText {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

fn store(model: &Model, learnt: &Learnt) -> Stored {
    let peers = model.peers().values().map(|peer| StoredPeer {
        public_key: peer.public_key.to_string(),
        preshared_key: peer.preshared_key.as_ref().map(|key| SecretText(STANDARD.encode(key.as_bytes()))),
        endpoint: peer.endpoint,
        learnt_endpoint: learnt.get(&peer.public_key).copied(),
        persistent_keepalive: peer.persistent_keepalive,
        allowed_ips: peer.allowed_ips.iter().map(AllowedIp::to_string).collect(),
    });
    Stored {
        version: VERSION,
        private_key: model.private_key.as_ref().map(|key| SecretText(STANDARD.encode(key.as_bytes()))),
        listen_port: model.listen_port,
        fwmark: model.fwmark,
        peers: peers.collect(),
    }
}

fn restore(stored: &Stored) -> Result<(Model, Learnt), &'static str> {
    let mut model = Model::new(stored.listen_port, stored.fwmark);
    if let Some(text) = &stored.private_key {
        let bytes = key::parse(&text.0).map_err(|_| "private_key")?;
        model.set_private_key(Some(PrivateKey::new(*bytes)));
    }
    let mut learnt = Learnt::new();
    for peer in &stored.peers {
        let public_key: PublicKey = peer.public_key.parse().map_err(|_| "public_key")?;
        let mut config = PeerConfig::new(public_key);
        config.endpoint = peer.endpoint;
        config.persistent_keepalive = peer.persistent_keepalive;
        if let Some(text) = &peer.preshared_key {
            config.preshared_key = PresharedKey::new(*key::parse(&text.0).map_err(|_| "preshared_key")?);
        }
        for prefix in &peer.allowed_ips {
            config.allowed_ips.insert(prefix.parse().map_err(|_| "allowed_ips")?);
        }
        model.put(config);
        learnt.extend(peer.learnt_endpoint.map(|endpoint| (public_key, endpoint)));
    }
    Ok((model, learnt))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    fn model() -> Model {
        let mut model = Model::new(51871, 7);
        model.set_private_key(Some(PrivateKey::new([7; 32])));
        model.put(PeerConfig {
            preshared_key: PresharedKey::new([3; 32]),
            endpoint: Some("[2001:db8::1]:51871".parse().unwrap()),
            persistent_keepalive: 25,
            allowed_ips: ["10.0.0.0/8".parse().unwrap(), "fd00::/64".parse().unwrap()].into(),
            ..PeerConfig::new(PublicKey::new([1; 32]))
        });
        model.put(PeerConfig::new(PublicKey::new([2; 32])));
        model
    }

    #[test]
    fn what_is_saved_is_loaded_and_only_the_owner_may_read_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("wireguard.state");
        let file = StateFile::open(&path).unwrap();
        assert_eq!(file.load().unwrap(), (Model::default(), Learnt::new()));
        let learnt = Learnt::from([(PublicKey::new([2; 32]), "192.0.2.9:1".parse().unwrap())]);
        file.save(&model(), &learnt).unwrap();
        file.save(&model(), &learnt).unwrap();
        assert_eq!(file.load().unwrap(), (model(), learnt));
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let left: Vec<_> = fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
        assert_eq!(left.len(), 2, "{left:?}");
    }

    #[test]
    fn second_engine_is_kept_away() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state");
        let first = StateFile::open(&path).unwrap();
        assert!(matches!(StateFile::open(&path), Err(StateError::InUse { .. })));
        drop(first);
        assert!(StateFile::open(&path).is_ok());
    }

    #[test]
    fn damaged_files_are_named_without_their_contents() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state");
        let file = StateFile::open(&path).unwrap();
        let secret = "c2VjcmV0";
        for text in [
            String::new(),
            "{".to_owned(),
            format!(r#"{{"version":1,"private_key":"{secret}","listen_port":1,"fwmark":0,"peers":[]}}"#),
            format!(r#"{{"version":1,"listen_port":"{secret}","fwmark":0,"peers":[]}}"#),
            format!(r#"{{"version":1,"{secret}":1,"listen_port":1,"fwmark":0,"peers":[]}}"#),
        ] {
            fs::write(&path, &text).unwrap();
            let err = file.load().unwrap_err();
            assert!(matches!(err, StateError::Damaged { .. }), "{text}");
            assert!(!err.to_string().contains(secret), "{err}");
        }
        fs::write(&path, r#"{"version":2}"#).unwrap();
        assert!(matches!(file.load(), Err(StateError::Version { version: 2, .. })));
    }
}
