//! `node.yaml`: what the agent and the WireGuard engine of one machine are told.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::InvalidConfig;
use crate::cluster::{Encryption, Routing};
use crate::names::{ClusterName, NodeName};
use crate::token::MemberKind;

/// Which WireGuard engine is driven.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum WireguardMode {
    /// The kernel's where a probe finds it, else our own.
    #[default]
    Auto,
    /// The kernel's, or none.
    Kernel,
    /// Our own, a process beside the agent.
    User,
}

/// Of the WireGuard device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct WireguardConfig {
    /// Name of the device, at most 15 bytes. Default `fabric_wg`.
    pub interface: String,
    /// Folder of the configuration socket `{interface}.sock`. Default `/var/run/wireguard`, where `wg` looks.
    pub socket_dir: PathBuf,
    /// Which engine. Default `auto`.
    pub mode: WireguardMode,
    /// UDP port on every node. Default 51871, which Cilium's nodes use as well; all nodes of a mesh use the same.
    pub port: u16,
}

impl Default for WireguardConfig {
    fn default() -> Self {
        Self {
            interface: "fabric_wg".to_owned(),
            socket_dir: PathBuf::from("/var/run/wireguard"),
            mode: WireguardMode::default(),
            port: 51871,
        }
    }
}

/// What one machine is told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NodeConfig {
    /// The cluster that it belongs to.
    pub cluster: ClusterName,
    /// Its name in that cluster.
    pub name: NodeName,
    /// What it is. Default `node`.
    #[serde(default)]
    pub kind: MemberKind,
    /// Its addresses on the underlay, the preferred one first; never inside a workload prefix.
    pub addresses: Vec<IpAddr>,
    /// `ip:port` of the cluster's API, all replicas.
    pub api_endpoints: Vec<SocketAddr>,
    /// As the cluster has it.
    #[serde(default)]
    pub routing: Routing,
    /// As the cluster has it.
    #[serde(default)]
    pub encryption: Encryption,
    /// Underlay devices; empty: those that carry `addresses`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub devices: Vec<String>,
    /// State that outlives a reboot, 0700.
    pub state_dir: PathBuf,
    /// Sockets and process ids, 0700.
    pub run_dir: PathBuf,
    /// Where eBPF maps and links are pinned, below a bpffs mount.
    #[serde(default = "default_bpf_dir")]
    pub bpf_dir: PathBuf,
    /// The cgroup (v2) below which workloads and processes make their sockets; none: the root of the mount.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cgroup: Option<PathBuf>,
    /// Of the WireGuard device.
    #[serde(default)]
    pub wireguard: WireguardConfig,
    /// Port of Hubble's observer on the node's addresses. Default 4244.
    #[serde(default = "default_observer_port")]
    pub observer_port: u16,
}

fn default_bpf_dir() -> PathBuf {
    PathBuf::from("/sys/fs/bpf/fabric")
}

const fn default_observer_port() -> u16 {
    4244
}

impl NodeConfig {
    /// The node's certificate, chain, PEM.
    pub fn certificate_file(&self) -> PathBuf {
        self.state_dir.join("pki/node.crt")
    }

    /// Its key, PEM, 0600.
    pub fn key_file(&self) -> PathBuf {
        self.state_dir.join("pki/node.key")
    }

    /// The cluster's authority, PEM.
    pub fn authority_file(&self) -> PathBuf {
        self.state_dir.join("pki/authority.crt")
    }

    /// The WireGuard private key, 32 raw bytes, 0600.
    pub fn wireguard_key_file(&self) -> PathBuf {
        self.state_dir.join("wireguard.key")
    }

    /// The engine's keys and peers, 0600.
    pub fn wireguard_state_file(&self) -> PathBuf {
        self.state_dir.join("wireguard.state")
    }

    /// The agent's last synced state and local endpoints, 0600.
    pub fn agent_state_file(&self) -> PathBuf {
        self.state_dir.join("agent-state.json")
    }

    /// The agent's local API, a unix socket.
    pub fn agent_socket(&self) -> PathBuf {
        self.run_dir.join("agent.sock")
    }

    /// Hubble's observer on this machine, a unix socket.
    pub fn hubble_socket(&self) -> PathBuf {
        self.run_dir.join("hubble.sock")
    }

    /// Checks what types alone cannot.
    ///
    /// # Errors
    /// The first setting that cannot be.
    pub fn validate(&self) -> Result<(), InvalidConfig> {
        let Some(first) = self.addresses.first() else {
            return Err(InvalidConfig::new("addresses", "at least one address on the underlay is needed"));
        };
        if let Some(bad) = self.addresses.iter().find(|a| a.is_loopback() || a.is_unspecified() || a.is_multicast()) {
            return Err(InvalidConfig::new("addresses", format!("{bad} cannot be reached by other nodes")));
        }
        if !first.is_ipv4() {
            return Err(InvalidConfig::new("addresses", format!("the first one must be IPv4 for now, {first} is not")));
        }
        if self.api_endpoints.is_empty() {
            return Err(InvalidConfig::new("api_endpoints", "at least one ip:port of the cluster's API is needed"));
        }
        let name = &self.wireguard.interface;
        if name.is_empty() || name.len() > 15 || name.contains(['/', ' ', ':']) {
            return Err(InvalidConfig::new(
                "wireguard.interface",
                format!("{name:?} is not a device name of 1 to 15 bytes"),
            ));
        }
        if self.wireguard.port == 0 {
            return Err(InvalidConfig::new("wireguard.port", "must not be 0: other nodes must know it"));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINIMAL: &str = "cluster: eu
name: eu1
addresses: [192.0.2.1]
api_endpoints: ['192.0.2.1:4250']
state_dir: /var/lib/fabric
run_dir: /run/fabric
";

    #[test]
    fn defaults_are_filled_in() {
        let config: NodeConfig = serde_yaml_ng::from_str(MINIMAL).unwrap();
        config.validate().unwrap();
        assert_eq!(config.wireguard.port, 51871);
        assert_eq!(config.kind, MemberKind::Node);
        assert_eq!(config.agent_socket(), PathBuf::from("/run/fabric/agent.sock"));
        let again: NodeConfig = serde_yaml_ng::from_str(&serde_yaml_ng::to_string(&config).unwrap()).unwrap();
        assert_eq!(again, config);
    }

    #[test]
    fn unknown_key_is_named() {
        let error = serde_yaml_ng::from_str::<NodeConfig>(&format!("{MINIMAL}colour: blue\n")).unwrap_err();
        assert!(error.to_string().contains("colour"), "{error}");
    }

    #[test]
    fn what_cannot_be_is_refused_by_key() {
        for (from, to, key) in [
            ("addresses: [192.0.2.1]", "addresses: []", "addresses"),
            ("addresses: [192.0.2.1]", "addresses: [127.0.0.1]", "addresses"),
            ("addresses: [192.0.2.1]", "addresses: ['2001:db8::1']", "addresses"),
            ("api_endpoints: ['192.0.2.1:4250']", "api_endpoints: []", "api_endpoints"),
            (
                "run_dir: /run/fabric",
                "run_dir: /run/fabric\nwireguard: {interface: sixteen-bytes-xx}",
                "wireguard.interface",
            ),
            ("run_dir: /run/fabric", "run_dir: /run/fabric\nwireguard: {port: 0}", "wireguard.port"),
        ] {
            let config: NodeConfig = serde_yaml_ng::from_str(&MINIMAL.replace(from, to)).unwrap();
            assert_eq!(config.validate().unwrap_err().key, key, "{to}");
        }
    }
}
