//! The client: a [`WgDevice`] behind a configuration socket, ours or another implementation's.

use std::fmt::Write as _;
use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use zeroize::Zeroizing;

use super::{response, socket_path};
use crate::device::{
    DeviceError, DeviceSettings, DeviceStatus, EngineKind, PatchMode, PeerChange, PeerPatch, WgDevice,
};
use crate::interface::InterfaceName;
use crate::key::{KEY_LEN, PrivateKey, PublicKey};

/// How long the engine may take for one answer.
const PATIENCE: Duration = Duration::from_secs(5);
/// A device with a hundred thousand prefixes answers with a few megabytes.
const MAX_ANSWER: u64 = 64 << 20;

/// A device steered over its configuration socket. Each call uses a connection of its own, so an engine that was
/// restarted in between is no matter.
#[derive(Debug)]
pub struct UapiDevice {
    interface: InterfaceName,
    socket: PathBuf,
    removal: Removal,
}

/// How a prefix is taken away from a peer that stays.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Removal {
    /// By `allowed_ip=-…`, which newer engines know.
    Direct,
    /// By giving it to a peer that exists only for that and goes at once: no moment without the others.
    Detour,
}

impl UapiDevice {
    /// A device whose socket is `{socket_dir}/{interface}.sock`. Nothing is touched yet.
    pub fn new(interface: InterfaceName, socket_dir: &Path) -> Self {
        let socket = socket_path(socket_dir, &interface);
        Self { interface, socket, removal: Removal::Direct }
    }

    fn converse(&self, request: &str) -> Result<Zeroizing<String>, DeviceError> {
        let stream = UnixStream::connect(&self.socket)
            .map_err(|source| DeviceError::Absent { interface: self.interface.clone(), source })?;
        exchange(stream, request).map_err(|source| DeviceError::Io { interface: self.interface.clone(), source })
    }

    fn order(&self, request: &str) -> Result<(), DeviceError> {
        let answer = self.converse(request)?;
        self.check(response::errno(&answer).ok_or_else(|| self.malformed("errno"))?)
    }

    fn check(&self, errno: i32) -> Result<(), DeviceError> {
        match errno {
            0 => Ok(()),
            errno => Err(DeviceError::Refused { interface: self.interface.clone(), errno }),
        }
    }

    fn malformed(&self, what: &'static str) -> DeviceError {
        DeviceError::Malformed { interface: self.interface.clone(), what }
    }

    fn send_changes(&self, changes: &[PeerChange]) -> Result<(), DeviceError> {
        let mut request = message(1024 * changes.len());
        let scratch = PrivateKey::generate()
            .map_err(|source| DeviceError::Io { interface: self.interface.clone(), source })?
            .public_key();
        for change in changes {
            match change {
                PeerChange::Remove(key) => write_removal(&mut request, *key),
                PeerChange::Patch(patch) => write_patch(&mut request, patch, self.removal, scratch),
            }
        }
        request.push('\n');
        self.order(&request)
    }
}

impl WgDevice for UapiDevice {
    fn interface(&self) -> &InterfaceName {
        &self.interface
    }

    fn kind(&self) -> EngineKind {
        EngineKind::User
    }

    fn read(&mut self) -> Result<DeviceStatus, DeviceError> {
        let answer = self.converse("get=1\n\n")?;
        self.check(response::errno(&answer).ok_or_else(|| self.malformed("errno"))?)?;
        response::parse(&answer).map_err(|what| self.malformed(what))
    }

    fn set(&mut self, settings: &DeviceSettings) -> Result<(), DeviceError> {
        let mut request = message(256);
        if let Some(key) = &settings.private_key {
            push_secret(&mut request, "private_key", key.as_bytes());
        }
        if let Some(port) = settings.listen_port {
            push(&mut request, "listen_port", port);
        }
        if let Some(mark) = settings.fwmark {
            push(&mut request, "fwmark", mark);
        }
        request.push('\n');
        self.order(&request)
    }

    fn change_peers(&mut self, changes: &[PeerChange]) -> Result<(), DeviceError> {
        let takes_prefixes =
            |change: &PeerChange| matches!(change, PeerChange::Patch(p) if !p.remove_allowed_ips.is_empty());
        match self.send_changes(changes) {
            // wireguard-go before 2025 knows no removal of one prefix; all steps are idempotent, so they are sent anew.
            Err(DeviceError::Refused { .. })
                if self.removal == Removal::Direct && changes.iter().any(takes_prefixes) =>
            {
                self.removal = Removal::Detour;
                self.send_changes(changes)
            }
            other => other,
        }
    }
}

fn exchange(mut stream: UnixStream, request: &str) -> io::Result<Zeroizing<String>> {
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    stream.write_all(request.as_bytes())?;
    let mut answer = Zeroizing::new(String::new());
    let mut reader = BufReader::new(stream.try_clone()?).take(MAX_ANSWER);
    loop {
        let before = answer.len();
        if reader.read_line(&mut answer)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if answer.get(before..) == Some("\n") {
            // The answer is complete; whether the engine hears the farewell does not matter.
            let _ = stream.shutdown(Shutdown::Both);
            return Ok(answer);
        }
    }
}

/// Begins a message with room for what follows: a string that grows leaves copies of keys behind.
fn message(room: usize) -> Zeroizing<String> {
    let mut text = Zeroizing::new(String::with_capacity(room + 64));
    text.push_str("set=1\n");
    text
}

fn push(request: &mut String, key: &str, value: impl std::fmt::Display) {
    // Writing to a string cannot fail.
    let _ = writeln!(request, "{key}={value}");
}

fn push_secret(request: &mut String, key: &str, bytes: &[u8; KEY_LEN]) {
    let text = Zeroizing::new(hex::encode(bytes));
    push(request, key, text.as_str());
}

fn write_removal(request: &mut String, key: PublicKey) {
    push(request, "public_key", key.to_hex());
    push(request, "remove", true);
}

fn write_patch(request: &mut String, patch: &PeerPatch, removal: Removal, scratch: PublicKey) {
    push(request, "public_key", patch.public_key.to_hex());
    if patch.mode == PatchMode::UpdateOnly {
        push(request, "update_only", true);
    }
    match &patch.preshared_key {
        Some(Some(key)) => push_secret(request, "preshared_key", key.as_bytes()),
        Some(None) => push_secret(request, "preshared_key", &[0; KEY_LEN]),
        None => {}
    }
    if let Some(endpoint) = patch.endpoint {
        push(request, "endpoint", endpoint);
    }
    if let Some(seconds) = patch.persistent_keepalive {
        push(request, "persistent_keepalive_interval", seconds);
    }
    for prefix in &patch.add_allowed_ips {
        push(request, "allowed_ip", prefix);
    }
    if patch.remove_allowed_ips.is_empty() {
        return;
    }
    match removal {
        Removal::Direct => {
            for prefix in &patch.remove_allowed_ips {
                push(request, "allowed_ip", format_args!("-{prefix}"));
            }
        }
        Removal::Detour => {
            push(request, "public_key", scratch.to_hex());
            for prefix in &patch.remove_allowed_ips {
                push(request, "allowed_ip", prefix);
            }
            write_removal(request, scratch);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn patch() -> PeerPatch {
        let mut patch = PeerPatch::new(PublicKey::new([1; 32]), PatchMode::UpdateOnly);
        patch.endpoint = Some("[2001:db8::1]:51871".parse().unwrap());
        patch.persistent_keepalive = Some(25);
        patch.preshared_key = Some(None);
        patch.add_allowed_ips = ["10.0.0.0/8".parse().unwrap()].into();
        patch.remove_allowed_ips = ["fd00::/64".parse().unwrap()].into();
        patch
    }

    #[test]
    fn patch_is_written_as_the_protocol_says() {
        let mut text = String::new();
        write_patch(&mut text, &patch(), Removal::Direct, PublicKey::new([2; 32]));
        let expected = format!(
            "public_key={}\nupdate_only=true\npreshared_key={}\nendpoint=[2001:db8::1]:51871\n\
             persistent_keepalive_interval=25\nallowed_ip=10.0.0.0/8\nallowed_ip=-fd00::/64\n",
            "01".repeat(32),
            "00".repeat(32),
        );
        assert_eq!(text, expected);
    }

    #[test]
    fn detour_moves_the_prefix_to_a_peer_that_goes() {
        let mut text = String::new();
        write_patch(&mut text, &patch(), Removal::Detour, PublicKey::new([2; 32]));
        let scratch = "02".repeat(32);
        assert!(
            text.ends_with(&format!("public_key={scratch}\nallowed_ip=fd00::/64\npublic_key={scratch}\nremove=true\n"))
        );
        assert!(!text.contains("=-"));
    }
}
