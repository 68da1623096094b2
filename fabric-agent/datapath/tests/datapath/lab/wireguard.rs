//! WireGuard between the two nodes, by `wireguard-go` and `wg`: another implementation than ours, over a plain TUN device.

use std::{
    io::Write as _,
    path::Path,
    process::{Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    time::{Duration, Instant},
};

use fabric_agent_datapath::{IfIndex, Role, rows::NodeConfig};

use super::{
    Running, run,
    two_nodes::{Node, TwoNodes},
};

const PORT: u16 = 51_871;
/// 1500 less what WireGuard adds over IPv6.
const MTU: u16 = 1_420;
/// That less VXLAN over IPv4.
const INNER_MTU: u16 = 1_370;
static NEXT: AtomicU32 = AtomicU32::new(0);

/// Says so and answers `false` where the programs are missing.
pub(crate) fn installed() -> bool {
    let there = ["wireguard-go", "wg"].iter().all(|p| Command::new(p).arg("--version").output().is_ok());
    if !there {
        eprintln!("SKIPPED: wireguard-go and wg are not installed");
    }
    there
}

/// One node's WireGuard; ends when dropped.
#[derive(Debug)]
pub(crate) struct Tunnel {
    pub(crate) device: String,
    private: String,
    _engine: Running,
}

impl Tunnel {
    fn new(node: &Node) -> Self {
        let device = format!("fw{}x{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let engine = node.namespace.start(&format!("wireguard-go -f {device}"));
        let socket = Path::new("/var/run/wireguard").join(format!("{device}.sock"));
        let deadline = Instant::now() + Duration::from_secs(10);
        while !socket.exists() {
            assert!(Instant::now() < deadline, "wireguard-go does not open {}", socket.display());
            std::thread::sleep(Duration::from_millis(20));
        }
        let private = run("wg", &["genkey"]).trim().to_owned();
        Self { device, private, _engine: engine }
    }

    fn public(&self) -> String {
        let mut child = Command::new("wg").arg("pubkey").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(self.private.as_bytes()).unwrap();
        String::from_utf8(child.wait_with_output().unwrap().stdout).unwrap().trim().to_owned()
    }

    fn configure(&self, node: &Node, other: &Node, peer: &str) {
        let key = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(key.path(), &self.private).unwrap();
        let mut allowed = vec![format!("{}/32", other.underlay_ipv4()), format!("{}/128", other.underlay_ipv6())];
        allowed.extend(other.prefixes().map(|p| p.to_string()));
        let line = format!(
            "wg set {} private-key {} listen-port {PORT} peer {peer} endpoint {}:{PORT} allowed-ips {}",
            self.device,
            key.path().display(),
            other.underlay_ipv4(),
            allowed.join(",")
        );
        node.namespace.run(&line);
        node.namespace.ip(&format!("link set {} mtu {MTU} up", self.device));
    }

    pub(crate) fn index(&self, node: &Node) -> IfIndex {
        node.namespace.index(&self.device)
    }
}

impl Drop for Tunnel {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(Path::new("/var/run/wireguard").join(format!("{}.sock", self.device)));
    }
}

/// Puts WireGuard between the nodes and has them require it.
pub(crate) fn encrypt(lab: &TwoNodes) -> [Tunnel; 2] {
    let (a, b) = (Tunnel::new(&lab.a), Tunnel::new(&lab.b));
    a.configure(&lab.a, &lab.b, &b.public());
    b.configure(&lab.b, &lab.a, &a.public());
    for (node, other, tunnel) in [(&lab.a, &lab.b, &a), (&lab.b, &lab.a, &b)] {
        let device = tunnel.index(node);
        node.namespace.enter(|| node.datapath().attach(Role::WireGuard, device).unwrap());
        let maps = node.datapath().maps();
        let config = maps.config().unwrap().unwrap();
        maps.set_config(&NodeConfig { wireguard_device: Some(device), ..config }).unwrap();
        node.require_encryption(other);
        node.endpoint.ip(&format!("link set eth0 mtu {INNER_MTU}"));
    }
    [a, b]
}
