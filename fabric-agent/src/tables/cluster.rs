//! Clusters of the mesh. Written by the API's stream.

use clustermesh_api_proto::fabric::v1 as proto;
use fabric_core::cluster::{Encryption, Routing};
use fabric_core::ids::{ClusterId, Mtu};
use fabric_core::names::ClusterName;
use fabric_core::prefix::Prefix;
use serde::{Deserialize, Serialize};

use super::row::{InvalidRow, Reader};

/// What is known of a cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ClusterRow {
    pub(crate) name: ClusterName,
    pub(crate) id: ClusterId,
    /// Workload prefixes.
    pub(crate) prefixes: Vec<Prefix>,
    pub(crate) encryption: Encryption,
    pub(crate) routing: Routing,
    pub(crate) local: bool,
    /// Disconnected: everything from and to its prefixes is dropped.
    pub(crate) blocked: bool,
    /// Of the local cluster only.
    pub(crate) service_prefixes: Vec<Prefix>,
    /// Smallest of its nodes.
    pub(crate) underlay_mtu: Option<Mtu>,
}

pub(crate) fn encryption(number: i32) -> Option<Encryption> {
    match proto::Encryption::try_from(number) {
        Ok(proto::Encryption::None) => Some(Encryption::None),
        Ok(proto::Encryption::Wireguard) => Some(Encryption::Wireguard),
        Ok(proto::Encryption::Unspecified) | Err(_) => None,
    }
}

pub(crate) fn routing(number: i32) -> Option<Routing> {
    match proto::Routing::try_from(number) {
        Ok(proto::Routing::Vxlan) => Some(Routing::Vxlan),
        Ok(proto::Routing::Geneve) => Some(Routing::Geneve),
        Ok(proto::Routing::Native) => Some(Routing::Native),
        Ok(proto::Routing::Unspecified) | Err(_) => None,
    }
}

impl ClusterRow {
    pub(crate) fn parse(cluster: &proto::Cluster) -> Result<Self, InvalidRow> {
        let reader = Reader::new(format_args!("cluster {}", cluster.name));
        Ok(Self {
            name: reader.parse("name", &cluster.name)?,
            id: reader.check("id", ClusterId::new(cluster.id))?,
            prefixes: reader.parse_all("prefixes", &cluster.prefixes)?,
            // What is not said is what is safe: an unknown word must not open a link.
            encryption: encryption(cluster.encryption).unwrap_or(Encryption::Wireguard),
            routing: routing(cluster.routing).ok_or_else(|| reader.refuse("routing", "not known to this version"))?,
            local: cluster.local,
            blocked: cluster.blocked,
            service_prefixes: reader.parse_all("service_prefixes", &cluster.service_prefixes)?,
            underlay_mtu: match cluster.underlay_mtu {
                0 => None,
                bytes => Some(reader.check("underlay_mtu", Mtu::new(bytes))?),
            },
        })
    }

    /// As it came.
    pub(crate) fn to_proto(&self) -> proto::Cluster {
        let texts = |prefixes: &[Prefix]| prefixes.iter().map(ToString::to_string).collect();
        let encryption = match self.encryption {
            Encryption::None => proto::Encryption::None,
            Encryption::Wireguard => proto::Encryption::Wireguard,
        };
        let routing = match self.routing {
            Routing::Vxlan => proto::Routing::Vxlan,
            Routing::Geneve => proto::Routing::Geneve,
            Routing::Native => proto::Routing::Native,
        };
        proto::Cluster {
            name: self.name.to_string(),
            id: u32::from(self.id.value()),
            prefixes: texts(&self.prefixes),
            encryption: encryption.into(),
            routing: routing.into(),
            local: self.local,
            blocked: self.blocked,
            service_prefixes: texts(&self.service_prefixes),
            underlay_mtu: self.underlay_mtu.map_or(0, |mtu| u32::from(mtu.value())),
        }
    }
}
