//! Where things stand below the state and run directories. One place, so that all processes agree.

use std::path::{Path, PathBuf};

/// The agent's configuration.
pub fn node_config(state: &Path) -> PathBuf {
    state.join("node.yaml")
}

/// The API's configuration.
pub fn api_config(state: &Path) -> PathBuf {
    state.join("api.yaml")
}

/// The node's certificate, PEM.
pub fn node_certificate(state: &Path) -> PathBuf {
    state.join("pki/node.crt")
}

/// The node's private key, PEM, 0600.
pub fn node_key(state: &Path) -> PathBuf {
    state.join("pki/node.key")
}

/// The authority's certificate that the node trusts, PEM.
pub fn node_authority(state: &Path) -> PathBuf {
    state.join("pki/authority.crt")
}

/// The API's authority and leafs.
pub fn api_pki(state: &Path) -> PathBuf {
    state.join("api/pki")
}

/// The child etcd's data.
pub fn etcd_data(state: &Path) -> PathBuf {
    state.join("api/etcd")
}

/// WireGuard's private key, 32 raw bytes, 0600.
pub fn wireguard_key(state: &Path) -> PathBuf {
    state.join("wireguard.key")
}

/// The WireGuard engine's peers, 0600.
pub fn wireguard_state(state: &Path) -> PathBuf {
    state.join("wireguard.state")
}

/// The agent's last synced state, 0600.
pub fn agent_state(state: &Path) -> PathBuf {
    state.join("agent-state.json")
}

/// Socket of the agent's local API.
pub fn agent_socket(run: &Path) -> PathBuf {
    run.join("agent.sock")
}

/// Socket of the agent's Hubble observer.
pub fn hubble_socket(run: &Path) -> PathBuf {
    run.join("hubble.sock")
}
