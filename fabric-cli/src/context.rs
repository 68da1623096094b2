//! Contexts: which cluster a command talks to, and with which certificate. A file like kubectl's, 0600.

use std::io::Write as _;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::failure::Failure;
use fabric_core::error_code;

/// One cluster, and how to speak to its API as an administrator.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Context {
    /// The cluster's name.
    pub name: String,
    /// `ip:port` of its API, all of its replicas.
    pub servers: Vec<String>,
    /// The authority that the server's certificate must come from, PEM.
    pub authority_pem: String,
    /// Our certificate, PEM.
    pub certificate_pem: String,
    /// Its key, PEM.
    pub key_pem: String,
}

impl std::fmt::Debug for Context {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Context").field("name", &self.name).field("servers", &self.servers).finish_non_exhaustive()
    }
}

/// The whole file.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Contexts {
    /// The one that commands use without `--context`.
    #[serde(default)]
    pub current: String,
    /// In order of name.
    #[serde(default)]
    pub contexts: Vec<Context>,
}

/// Where the file is: `$FABRIC_CONFIG`, else `~/.config/fabric/config`.
pub fn path() -> PathBuf {
    if let Some(path) = std::env::var_os("FABRIC_CONFIG") {
        return PathBuf::from(path);
    }
    let home = std::env::var_os("HOME").map_or_else(|| PathBuf::from("/root"), PathBuf::from);
    home.join(".config/fabric/config")
}

impl Contexts {
    /// Reads the file; one that is not there holds nothing.
    ///
    /// # Errors
    /// When it cannot be read or parsed.
    pub fn load(path: &Path) -> Result<Self, Failure> {
        let text = match std::fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Self::default()),
            Err(error) => return Err(Failure::new(format!("cannot read {}: {error}", path.display()))),
        };
        serde_yaml_ng::from_str(&text).map_err(|e| Failure::new(format!("{}: {e}", path.display())))
    }

    /// Picks a context by name, or the current one.
    ///
    /// # Errors
    /// When there is none of that name.
    pub fn pick(&self, name: Option<&str>) -> Result<&Context, Failure> {
        let known = || self.contexts.iter().map(|c| c.name.as_str()).collect::<Vec<_>>().join(", ");
        let wanted = name.unwrap_or(&self.current);
        if wanted.is_empty() {
            return Err(Failure::usage("no cluster is known on this machine")
                .code(error_code::NO_CONTEXT)
                .next("fabric up --cluster NAME, or copy a context file here (see FABRIC_CONFIG)"));
        }
        self.contexts.iter().find(|c| c.name == wanted).ok_or_else(|| {
            Failure::usage(format!("there is no context {wanted:?}; known: {}", known())).code(error_code::NO_CONTEXT)
        })
    }
}

/// Adds a context, or replaces the one of its name; it becomes the current one if there was none.
///
/// # Errors
/// When the file cannot be written.
pub fn add(path: &Path, context: Context) -> Result<(), Failure> {
    let cannot = |e: std::io::Error| Failure::new(format!("cannot write {}: {e}", path.display()));
    if let Some(dir) = path.parent() {
        std::fs::create_dir_all(dir).map_err(cannot)?;
    }
    // Several `fabric up` at once: the lock goes with the file handle.
    let lock = std::fs::File::create(path.with_extension("lock")).map_err(cannot)?;
    lock.lock().map_err(cannot)?;
    let mut all = Contexts::load(path)?;
    if all.current.is_empty() {
        all.current.clone_from(&context.name);
    }
    all.contexts.retain(|c| c.name != context.name);
    all.contexts.push(context);
    all.contexts.sort_by(|a, b| a.name.cmp(&b.name));
    let text = serde_yaml_ng::to_string(&all).map_err(|e| Failure::new(e.to_string()))?;
    write_private(path, text.as_bytes()).map_err(cannot)
}

/// Writes a file that only its owner may read, in one step: a reader sees the old one or the new one.
///
/// # Errors
/// When the folder is not writable or the disk is full.
pub fn write_private(path: &Path, content: &[u8]) -> std::io::Result<()> {
    let temporary = path.with_extension(format!("tmp{}", std::process::id()));
    let mut file = std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&temporary)?;
    file.set_permissions(std::fs::Permissions::from_mode(0o600))?;
    file.write_all(content)?;
    file.sync_all()?;
    std::fs::rename(&temporary, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn context(name: &str) -> Context {
        Context {
            name: name.to_owned(),
            servers: vec!["192.0.2.1:4250".to_owned()],
            authority_pem: "a".to_owned(),
            certificate_pem: "c".to_owned(),
            key_pem: "k".to_owned(),
        }
    }

    #[test]
    fn added_contexts_are_found_and_private() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("sub/config");
        add(&file, context("eu")).unwrap();
        add(&file, context("ap")).unwrap();
        add(&file, context("eu")).unwrap();
        let all = Contexts::load(&file).unwrap();
        assert_eq!(all.contexts.len(), 2);
        assert_eq!(all.pick(None).unwrap().name, "eu");
        assert_eq!(all.pick(Some("ap")).unwrap().name, "ap");
        assert_eq!(all.pick(Some("us")).unwrap_err().exit, crate::failure::Exit::Usage);
        assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn unknown_field_is_refused_by_name() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("config");
        std::fs::write(&file, "current: eu\ncolour: blue\n").unwrap();
        assert!(Contexts::load(&file).unwrap_err().message.contains("colour"));
    }

    #[test]
    fn key_does_not_show() {
        assert!(!format!("{:?}", context("eu")).contains("key_pem"));
    }
}
