//! `Service` of `v1`, with Cilium's annotations for global services.

use std::collections::BTreeMap;
use std::net::IpAddr;

use super::error::{Problem, shown};
use super::field::{Field, Map, Refusal};
use super::metadata::{Metadata, check_label};
use super::ports;
use super::tree::Value;
use crate::service::annotations::{self, UNSUPPORTED, UNSUPPORTED_REASON};
use crate::service::{ClusterIps, Families, Protocol, ServicePort, ServiceSpec, Sharing};

/// Most ports of one service.
const MAX_PORTS: usize = 64;

/// Reads `spec`; the annotations of `metadata` say how the service is shared.
pub(super) fn read(document: &mut Map<'_>, metadata: &Metadata) -> Result<ServiceSpec, Refusal> {
    let sharing = sharing(document, &metadata.annotations)?;
    let field = document.required("spec", "write at least ports")?;
    let mut map = field.map()?;
    refuse_unsupported(&mut map)?;
    let selector = map.optional("selector")?.map(|field| selector(&field)).transpose()?.unwrap_or_default();
    let cluster_ips = cluster_ips(&mut map)?;
    let families = families(&mut map)?;
    let ports = map.optional("ports")?.map(|field| port_list(&field)).transpose()?.unwrap_or_default();
    if ports.is_empty() && cluster_ips != ClusterIps::Headless {
        return Err(map.missing("ports", "list at least one port"));
    }
    map.tolerate(&["allocateLoadBalancerNodePorts", "publishNotReadyAddresses"]);
    map.finish()?;
    Ok(ServiceSpec { selector, ports, cluster_ips, families, sharing })
}

fn refuse_unsupported(map: &mut Map<'_>) -> Result<(), Refusal> {
    map.only("type", &["ClusterIP"], "services are reached by their cluster address alone; write ClusterIP")?;
    map.only("sessionAffinity", &["None"], "clients are not bound to backends; write None")?;
    map.only("internalTrafficPolicy", &["Cluster"], "backends of all nodes serve; write Cluster")?;
    let outside = "services are not offered outside the mesh";
    map.unsupported(&[
        ("externalIPs", outside),
        ("externalName", "names outside are not followed"),
        ("externalTrafficPolicy", outside),
        ("healthCheckNodePort", outside),
        ("loadBalancerClass", outside),
        ("loadBalancerIP", outside),
        ("loadBalancerSourceRanges", outside),
        ("sessionAffinityConfig", "clients are not bound to backends"),
        ("trafficDistribution", "use the annotation service.cilium.io/affinity to prefer local or remote backends"),
    ])
}

/// A bad annotation is refused at its own place in `metadata`.
fn sharing(document: &Map<'_>, notes: &BTreeMap<String, String>) -> Result<Sharing, Refusal> {
    let at = |key: &str| {
        let annotations = document.fields().find(|(name, _)| *name == "metadata").and_then(|(_, field)| {
            field.map().ok()?.fields().find(|(name, _)| *name == "annotations").map(|(_, field)| field)
        });
        annotations
            .and_then(|field| field.map().ok()?.fields().find(|(name, _)| *name == key).map(|(_, field)| field))
            .unwrap_or_else(|| document.field().clone())
    };
    if let Some(key) = UNSUPPORTED.iter().find(|key| notes.contains_key(**key)) {
        return Err(at(key).refuse(Problem::Unsupported(UNSUPPORTED_REASON)));
    }
    annotations::read(notes).map_err(|error| {
        at(error.key).refuse(Problem::Invalid { value: shown(&error.value), why: error.why.to_owned() })
    })
}

fn selector(field: &Field<'_>) -> Result<BTreeMap<String, String>, Refusal> {
    for (key, value) in field.map()?.fields() {
        check_label(key, &value)?;
    }
    field.text_map()
}

fn cluster_ips(map: &mut Map<'_>) -> Result<ClusterIps, Refusal> {
    let one = map.optional("clusterIP")?;
    let many = map.optional("clusterIPs")?;
    let texts: Vec<Field<'_>> = match (&one, &many) {
        (_, Some(many)) => many.list()?.collect(),
        (Some(one), None) => vec![one.clone()],
        (None, None) => Vec::new(),
    };
    if let (Some(one), Some(first)) = (&one, texts.first())
        && one.text()? != first.text()?
    {
        return Err(one.invalid(one.text()?, "is not the first of clusterIPs; make them equal or leave one out"));
    }
    let mut addresses: Vec<IpAddr> = Vec::new();
    for field in &texts {
        match field.text()? {
            "" => {}
            "None" if texts.len() == 1 => return Ok(ClusterIps::Headless),
            _ => {
                let address: IpAddr = field.parse("write an address of the service range, None, or leave it out")?;
                if addresses.iter().any(|known| known.is_ipv4() == address.is_ipv4()) {
                    return Err(field.invalid(&address.to_string(), "is a second address of its family; keep one"));
                }
                addresses.push(address);
            }
        }
    }
    Ok(if addresses.is_empty() { ClusterIps::Allotted } else { ClusterIps::Given(addresses) })
}

fn families(map: &mut Map<'_>) -> Result<Families, Refusal> {
    let policy = map.optional("ipFamilyPolicy")?;
    let list = map.optional("ipFamilies")?;
    let list = list.map(|field| field.each(|item| item.one_of(&[("IPv4", true), ("IPv6", false)]))).transpose()?;
    let dual = match policy {
        Some(policy) => policy.one_of(&[
            ("SingleStack", Some(false)),
            ("PreferDualStack", Some(true)),
            ("RequireDualStack", Some(true)),
        ])?,
        None => None,
    };
    // Unlike Kubernetes, a service that says nothing is dual stack: so is every cluster of the mesh.
    Ok(match (list.as_deref(), dual) {
        (Some([true]), None | Some(false)) => Families::Ipv4,
        (Some([false]), None | Some(false)) => Families::Ipv6,
        (None, Some(false)) => Families::Ipv4,
        _ => Families::Dual,
    })
}

fn port_list(field: &Field<'_>) -> Result<Vec<ServicePort>, Refusal> {
    let mut list: Vec<ServicePort> = Vec::new();
    let items: Vec<Field<'_>> = field.list()?.collect();
    if items.len() > MAX_PORTS {
        return Err(field.refuse(Problem::TooMany { what: "ports", max: MAX_PORTS }));
    }
    for item in &items {
        let port = port(item, items.len())?;
        if list.iter().any(|known| known.name == port.name) {
            return Err(item.invalid(&port.name, "is the name of another port; give each its own"));
        }
        if list.iter().any(|known| known.port == port.port && known.protocol == port.protocol) {
            return Err(item.invalid(&format!("{}/{}", port.protocol, port.port), "is there twice; keep one"));
        }
        list.push(port);
    }
    Ok(list)
}

fn port(field: &Field<'_>, of: usize) -> Result<ServicePort, Refusal> {
    let mut map = field.map()?;
    map.unsupported(&[("nodePort", "services are not offered on node addresses; leave it out")])?;
    let name = match map.optional("name")? {
        Some(field) => port_name(&field)?,
        None if of > 1 => return Err(map.missing("name", "each of several ports needs a name")),
        None => String::new(),
    };
    let protocol = match map.optional("protocol")? {
        Some(field) => field.one_of(&Protocol::NAMES)?,
        None => Protocol::Tcp,
    };
    let port = ports::number(&map.required("port", "write the port's number")?)?;
    let target_port = match map.optional("targetPort")? {
        None => port,
        Some(field) if matches!(field.value(), Value::Text(_)) => {
            return Err(field.refuse(Problem::Unsupported("named ports are not resolved; write the number")));
        }
        Some(field) => ports::number(&field)?,
    };
    map.tolerate(&["appProtocol"]);
    map.finish()?;
    Ok(ServicePort { name, protocol, port, target_port })
}

fn port_name(field: &Field<'_>) -> Result<String, Refusal> {
    let text = field.text()?;
    let ok = text.len() <= 63 && crate::names::Namespace::new(text).is_ok();
    // The empty name is how the API server prints a port without one.
    if ok || text.is_empty() {
        return Ok(text.to_owned());
    }
    Err(field.invalid(text, "is no port name; use at most 63 lower-case letters, digits and '-'"))
}
