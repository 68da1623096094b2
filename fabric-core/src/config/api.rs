//! `api.yaml`: what a cluster's server is told.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::InvalidConfig;
use crate::cluster::ClusterSpec;

/// Where the store is.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", deny_unknown_fields)]
pub enum EtcdConfig {
    /// A child process of the API, its data below the state folder.
    #[default]
    Child,
    /// The user's own etcd.
    External {
        /// URLs: `https://192.0.2.1:2379`.
        endpoints: Vec<String>,
        /// Authority that signs the servers' certificates, PEM.
        ca_file: PathBuf,
        /// Our certificate, PEM.
        cert_file: PathBuf,
        /// Its key, PEM, 0600.
        key_file: PathBuf,
    },
}

/// What a cluster's server is told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ApiConfig {
    /// The cluster that it serves.
    pub cluster: ClusterSpec,
    /// Addresses of this machine that the API and the mesh endpoint listen on, and that agents and other clusters are
    /// told; never inside a workload prefix.
    pub addresses: Vec<IpAddr>,
    /// Port for agents, command line, enrolment and invites. Default 4250.
    #[serde(default = "default_api_port")]
    pub api_port: u16,
    /// Port of the mesh endpoint, the one that other clusters read. Default 2379.
    #[serde(default = "default_mesh_port")]
    pub mesh_port: u16,
    /// Where the store is. Default: a child process.
    #[serde(default)]
    pub etcd: EtcdConfig,
    /// State that outlives a reboot, 0700; the API's own is in its folder `api`.
    pub state_dir: PathBuf,
    /// Sockets and process ids, 0700.
    pub run_dir: PathBuf,
}

const fn default_api_port() -> u16 {
    4250
}

const fn default_mesh_port() -> u16 {
    2379
}

impl ApiConfig {
    /// Folder of the authority and of the server's certificates.
    pub fn pki_dir(&self) -> PathBuf {
        self.state_dir.join("api/pki")
    }

    /// The child etcd's data.
    pub fn etcd_dir(&self) -> PathBuf {
        self.state_dir.join("api/etcd")
    }

    /// `ip:port` of the API, as agents and other clusters are told.
    pub fn api_endpoints(&self) -> Vec<SocketAddr> {
        self.addresses.iter().map(|a| SocketAddr::new(*a, self.api_port)).collect()
    }

    /// `ip:port` of the mesh endpoint, as other clusters are told.
    pub fn mesh_endpoints(&self) -> Vec<SocketAddr> {
        self.addresses.iter().map(|a| SocketAddr::new(*a, self.mesh_port)).collect()
    }

    /// Checks what types alone cannot.
    ///
    /// # Errors
    /// The first setting that cannot be.
    pub fn validate(&self) -> Result<(), InvalidConfig> {
        self.cluster.validate().map_err(|e| InvalidConfig::new("cluster", e.to_string()))?;
        if self.addresses.is_empty() {
            return Err(InvalidConfig::new("addresses", "at least one address is needed"));
        }
        if let Some(bad) = self.addresses.iter().find(|a| a.is_unspecified() || a.is_multicast()) {
            return Err(InvalidConfig::new("addresses", format!("{bad} cannot be told to others")));
        }
        if let Some(inside) = self.addresses.iter().find(|a| self.cluster.owns(**a)) {
            let why =
                format!("{inside} lies inside the cluster's own workload prefix: control traffic would need the mesh");
            return Err(InvalidConfig::new("addresses", why));
        }
        if self.api_port == self.mesh_port {
            return Err(InvalidConfig::new("mesh_port", format!("{} is the API's port as well", self.mesh_port)));
        }
        if let EtcdConfig::External { endpoints, .. } = &self.etcd
            && (endpoints.is_empty() || endpoints.iter().any(|e| !e.starts_with("https://")))
        {
            return Err(InvalidConfig::new("etcd.endpoints", "each must be an https:// URL, and there must be one"));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::names::ClusterName;

    fn config() -> ApiConfig {
        ApiConfig {
            cluster: ClusterSpec::from_name(ClusterName::new("eu").unwrap()),
            addresses: vec!["192.0.2.1".parse().unwrap()],
            api_port: default_api_port(),
            mesh_port: default_mesh_port(),
            etcd: EtcdConfig::default(),
            state_dir: "/var/lib/fabric".into(),
            run_dir: "/run/fabric".into(),
        }
    }

    #[test]
    fn survives_its_file() {
        let text = serde_yaml_ng::to_string(&config()).unwrap();
        let again: ApiConfig = serde_yaml_ng::from_str(&text).unwrap();
        again.validate().unwrap();
        assert_eq!(again, config());
        assert_eq!(again.api_endpoints(), ["192.0.2.1:4250".parse().unwrap()]);
    }

    #[test]
    fn address_inside_the_own_prefix_is_refused() {
        let mut config = config();
        config.addresses = vec![config.cluster.prefixes[0].nth(1).unwrap()];
        assert_eq!(config.validate().unwrap_err().key, "addresses");
    }

    #[test]
    fn equal_ports_and_plain_etcd_are_refused() {
        let mut bad = config();
        bad.mesh_port = bad.api_port;
        assert_eq!(bad.validate().unwrap_err().key, "mesh_port");
        let mut bad = config();
        let file = PathBuf::from("x");
        bad.etcd = EtcdConfig::External {
            endpoints: vec!["http://192.0.2.1:2379".to_owned()],
            ca_file: file.clone(),
            cert_file: file.clone(),
            key_file: file,
        };
        assert_eq!(bad.validate().unwrap_err().key, "etcd.endpoints");
    }
}
