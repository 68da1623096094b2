//! `ClusterLink` of `fabric.io/v1alpha1`: what another cluster offered, and so what it may claim.

use std::net::SocketAddr;

use super::error::Problem;
use super::field::{Field, Refusal};
use super::metadata::Metadata;
use super::ports;
use crate::cluster::ClusterSpec;
use crate::ids::{ClusterId, Mtu};

/// Most addresses of one kind.
const MAX_ENDPOINTS: usize = 16;
const PEM_BEGIN: &str = "-----BEGIN CERTIFICATE-----";

/// `spec` of a ClusterLink.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClusterLink {
    /// The other cluster.
    pub cluster: ClusterSpec,
    /// Certificate of the authority that signs its certificates, PEM.
    pub authority_pem: String,
    /// Where its mesh endpoint listens.
    pub mesh_endpoints: Vec<SocketAddr>,
    /// Where its API listens.
    pub api_endpoints: Vec<SocketAddr>,
    /// Largest number of clusters that its mesh is set for; 0 = it did not say.
    pub max_connected_clusters: u32,
}

/// Reads `spec`; the object must be named after the cluster.
pub(super) fn read(field: &Field<'_>, metadata: &Metadata) -> Result<ClusterLink, Refusal> {
    let mut map = field.map()?;
    let cluster_field = map.required("cluster", "describe the other cluster: name, id, prefixes")?;
    let cluster = cluster(&cluster_field)?;
    if cluster.name.as_str() != metadata.name.as_str() {
        return Err(cluster_field.invalid(
            cluster.name.as_str(),
            format!("is not the link's own name; call the link {} too", cluster.name),
        ));
    }
    let authority = map.required("authority", "paste the certificate of the other cluster's authority, PEM")?;
    let authority_pem = authority.text()?.to_owned();
    if !authority_pem.trim_start().starts_with(PEM_BEGIN) || authority_pem.contains("PRIVATE KEY") {
        // The text itself is not shown: it could hold a key.
        let why = "is no certificate in PEM; paste the authority's certificate, and nothing else".to_owned();
        return Err(authority.refuse(Problem::Invalid { value: "the text".to_owned(), why }));
    }
    let mesh_endpoints = endpoints(&map.required("meshEndpoints", "list at least one \"address:port\"")?)?;
    let api_endpoints = map.optional("apiEndpoints")?.map(|field| endpoints(&field)).transpose()?.unwrap_or_default();
    let max_connected_clusters = match map.optional("maxConnectedClusters")? {
        Some(field) => match field.int()? {
            value @ (255 | 511) => u32::try_from(value).unwrap_or_default(),
            value => return Err(field.invalid(&value.to_string(), "is not 255 or 511")),
        },
        None => 0,
    };
    map.finish()?;
    Ok(ClusterLink { cluster, authority_pem, mesh_endpoints, api_endpoints, max_connected_clusters })
}

fn cluster(field: &Field<'_>) -> Result<ClusterSpec, Refusal> {
    let mut map = field.map()?;
    let name = map.required("name", "write the cluster's name")?.parse("choose another name")?;
    let id_field = map.required("id", "write the cluster's number")?;
    let id = ClusterId::new(id_field.int()?)
        .map_err(|error| id_field.invalid(&error.value.to_string(), format!("is refused: {error}")))?;
    let prefixes = map.required("prefixes", "list the cluster's workload prefixes")?.each(ports::prefix)?;
    let service_prefixes = map.optional("servicePrefixes")?.map(|field| field.each(ports::prefix)).transpose()?;
    let routing = map.optional("routing")?.map(|field| field.parse("choose one")).transpose()?;
    let encryption = map.optional("encryption")?.map(|field| field.parse("choose one")).transpose()?;
    let underlay_mtu = match map.optional("underlayMtu")? {
        Some(field) => Some(
            Mtu::new(field.int()?)
                .map_err(|error| field.invalid(&error.value.to_string(), format!("is refused: {error}")))?,
        ),
        None => None,
    };
    map.finish()?;
    let spec = ClusterSpec {
        name,
        id,
        prefixes,
        service_prefixes: service_prefixes.unwrap_or_default(),
        routing: routing.unwrap_or_default(),
        encryption: encryption.unwrap_or_default(),
        underlay_mtu,
    };
    spec.validate().map_err(|error| field.invalid(spec.name.as_str(), format!("cannot be a cluster: {error}")))?;
    Ok(spec)
}

fn endpoints(field: &Field<'_>) -> Result<Vec<SocketAddr>, Refusal> {
    let list: Vec<SocketAddr> = field.each(|item| item.parse("write \"address:port\", as 192.0.2.1:2379"))?;
    match list.len() {
        0 => Err(field.refuse(Problem::Missing { hint: "list at least one \"address:port\"" })),
        1..=MAX_ENDPOINTS => Ok(list),
        _ => Err(field.refuse(Problem::TooMany { what: "addresses", max: MAX_ENDPOINTS })),
    }
}
