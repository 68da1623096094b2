//! Between the messages of the API and the types of the core. What comes in is checked here, once.

use std::net::SocketAddr;
use std::str::FromStr;

use clustermesh_api_proto::fabric::v1 as proto;
use fabric_core::cluster::{ClusterSpec, Encryption, Routing};
use fabric_core::ids::{ClusterId, Mtu};
use fabric_core::names::{ClusterName, Namespace, NodeName, ObjectName};
use fabric_core::prefix::Prefix;
use fabric_core::token::MemberKind;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;

use crate::failure::Failure;
use crate::pki::Pin;
use crate::records::{LinkMode, LinkRecord};

/// Most addresses of one kind in an offer.
const MOST_ADDRESSES: usize = 16;
/// Longest text of an authority.
const AUTHORITY_BYTES: usize = 16 * 1024;

/// Parses a field of a request.
pub fn field<T>(name: &str, text: &str) -> Result<T, Failure>
where
    T: FromStr,
    T::Err: std::fmt::Display,
{
    text.parse().map_err(|error| Failure::invalid(format_args!("{name}: {error}")))
}

/// Parses a namespace; empty means `default`.
pub fn namespace(text: &str) -> Result<Namespace, Failure> {
    if text.is_empty() { Ok(Namespace::default_namespace()) } else { field("namespace", text) }
}

/// Parses the name of an object.
pub fn object_name(text: &str) -> Result<ObjectName, Failure> {
    field("name", text)
}

/// Parses the name of a node.
pub fn node_name(text: &str) -> Result<NodeName, Failure> {
    field("node name", text)
}

/// Parses the name of a cluster.
pub fn cluster_name(text: &str) -> Result<ClusterName, Failure> {
    field("cluster name", text)
}

/// Routing as a message says it.
pub fn routing_to_proto(routing: Routing) -> proto::Routing {
    match routing {
        Routing::Vxlan => proto::Routing::Vxlan,
        Routing::Geneve => proto::Routing::Geneve,
        Routing::Native => proto::Routing::Native,
    }
}

/// Encryption as a message says it.
pub fn encryption_to_proto(encryption: Encryption) -> proto::Encryption {
    match encryption {
        Encryption::None => proto::Encryption::None,
        Encryption::Wireguard => proto::Encryption::Wireguard,
    }
}

/// A cluster as a message says it. `local` and `blocked` are left out.
pub fn cluster_to_proto(spec: &ClusterSpec) -> proto::Cluster {
    proto::Cluster {
        name: spec.name.to_string(),
        id: u32::from(spec.id.value()),
        prefixes: spec.prefixes.iter().map(Prefix::to_string).collect(),
        encryption: encryption_to_proto(spec.encryption).into(),
        routing: routing_to_proto(spec.routing).into(),
        local: false,
        blocked: false,
        service_prefixes: spec.service_prefixes.iter().map(Prefix::to_string).collect(),
        underlay_mtu: spec.underlay_mtu.map_or(0, |mtu| u32::from(mtu.value())),
    }
}

/// A cluster from a message.
pub fn cluster_from_proto(cluster: &proto::Cluster) -> Result<ClusterSpec, Failure> {
    let prefixes = |name: &str, list: &[String]| -> Result<Vec<Prefix>, Failure> {
        list.iter().take(MOST_ADDRESSES).map(|text| field(name, text)).collect()
    };
    let routing = match cluster.routing() {
        proto::Routing::Vxlan => Routing::Vxlan,
        proto::Routing::Geneve => Routing::Geneve,
        proto::Routing::Native => Routing::Native,
        proto::Routing::Unspecified => return Err(Failure::invalid("cluster's routing is missing")),
    };
    let encryption = match cluster.encryption() {
        proto::Encryption::None => Encryption::None,
        proto::Encryption::Wireguard => Encryption::Wireguard,
        proto::Encryption::Unspecified => return Err(Failure::invalid("cluster's encryption is missing")),
    };
    let spec = ClusterSpec {
        name: cluster_name(&cluster.name)?,
        id: ClusterId::new(cluster.id).map_err(Failure::invalid)?,
        prefixes: prefixes("prefix", &cluster.prefixes)?,
        service_prefixes: prefixes("service prefix", &cluster.service_prefixes)?,
        routing,
        encryption,
        underlay_mtu: Mtu::new(cluster.underlay_mtu).ok(),
    };
    spec.validate().map_err(Failure::invalid)?;
    Ok(spec)
}

/// An offer that parses, with its authority.
#[derive(Debug, Clone)]
pub struct Offer {
    /// The other cluster.
    pub cluster: ClusterSpec,
    /// Its authority.
    pub authority: CertificateDer<'static>,
    /// The same, PEM.
    pub authority_pem: String,
    /// Hash of the authority's public key.
    pub pin: Pin,
    /// Where its mesh endpoint listens.
    pub mesh_endpoints: Vec<SocketAddr>,
    /// Where its API listens.
    pub api_endpoints: Vec<SocketAddr>,
    /// 255 or 511; 0 = not said.
    pub max_connected_clusters: u32,
}

/// Reads an offer.
pub fn offer_from_proto(offer: Option<&proto::LinkOffer>) -> Result<Offer, Failure> {
    let offer = offer.ok_or_else(|| Failure::invalid("offer is missing"))?;
    let cluster = offer.cluster.as_ref().ok_or_else(|| Failure::invalid("offer names no cluster"))?;
    let (authority, pin) = authority_from_pem(&offer.authority_pem)?;
    let addresses = |name: &str, list: &[String]| -> Result<Vec<SocketAddr>, Failure> {
        list.iter().take(MOST_ADDRESSES).map(|text| field(name, text)).collect()
    };
    Ok(Offer {
        cluster: cluster_from_proto(cluster)?,
        authority,
        authority_pem: offer.authority_pem.clone(),
        pin,
        mesh_endpoints: addresses("mesh endpoint", &offer.mesh_endpoints)?,
        api_endpoints: addresses("API endpoint", &offer.api_endpoints)?,
        max_connected_clusters: offer.max_connected_clusters,
    })
}

/// Reads one certificate and its pin.
pub fn authority_from_pem(pem: &str) -> Result<(CertificateDer<'static>, Pin), Failure> {
    if pem.len() > AUTHORITY_BYTES {
        return Err(Failure::invalid("authority's certificate is too long"));
    }
    let authority = CertificateDer::from_pem_slice(pem.as_bytes())
        .map_err(|error| Failure::invalid(format_args!("authority's certificate: {error}")))?;
    let pin = Pin::of_certificate(&authority)
        .map_err(|error| Failure::invalid(format_args!("authority's certificate: {error}")))?;
    Ok((authority, pin))
}

impl Offer {
    /// The record of a link that was made from it.
    pub fn to_record(&self) -> LinkRecord {
        let texts = |list: &[SocketAddr]| list.iter().map(SocketAddr::to_string).collect();
        LinkRecord {
            cluster: self.cluster.clone(),
            authority_pem: self.authority_pem.clone(),
            pin: self.pin.to_string(),
            mesh_endpoints: texts(&self.mesh_endpoints),
            api_endpoints: texts(&self.api_endpoints),
            mode: LinkMode::Active,
        }
    }
}

/// A stored link's offer, as it came.
pub fn offer_of_record(record: &LinkRecord) -> proto::LinkOffer {
    proto::LinkOffer {
        cluster: Some(cluster_to_proto(&record.cluster)),
        authority_pem: record.authority_pem.clone(),
        mesh_endpoints: record.mesh_endpoints.clone(),
        api_endpoints: record.api_endpoints.clone(),
        max_connected_clusters: 0,
    }
}

/// What a member is, as a message says it.
pub fn kind_to_proto(kind: MemberKind) -> proto::NodeKind {
    match kind {
        MemberKind::Node => proto::NodeKind::Node,
        MemberKind::Machine => proto::NodeKind::Machine,
    }
}
