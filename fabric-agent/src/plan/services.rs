//! Services by address, each with the backends that serve now.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use fabric_agent_datapath::rows::{Service, ServiceKey};

use fabric_core::service::{BackendState, Candidate, active_backends};

use super::Clusters;
use crate::tables::service::{ServiceBackend, ServicePort, ServiceRow};

/// Protocols that the programs translate: TCP and UDP.
const TRANSLATED: [u8; 2] = [6, 17];

/// Every port of every service, in both families.
pub(crate) fn services<'a>(
    rows: impl IntoIterator<Item = &'a ServiceRow>,
    clusters: &Clusters,
) -> BTreeMap<ServiceKey, Service> {
    let mut plan = BTreeMap::new();
    for service in rows {
        for port in service.ports.iter().filter(|port| TRANSLATED.contains(&port.protocol)) {
            for address in &service.frontends {
                let key = ServiceKey { frontend: SocketAddr::new(*address, port.port), protocol: port.protocol };
                let active = active(service, port, address.is_ipv4(), clusters);
                let mut backends: Vec<SocketAddr> = active.iter().map(|backend| backend.address).collect();
                backends.sort_unstable();
                backends.dedup();
                plan.entry(key).or_insert(Service { id: number(service), backends });
            }
        }
    }
    plan
}

/// The number by which flows name a service: the same on every node and after every restart, never 0.
pub(crate) fn number(service: &ServiceRow) -> u32 {
    let name = format!("{}/{}", service.kubernetes_namespace, service.name);
    // FNV-1a (draft-eastlake-fnv). Two services of one number would only share a name in flows.
    name.bytes().fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193)).max(1)
}

/// The backends of a port that serve: as the service's affinity chooses.
fn active<'a>(service: &'a ServiceRow, port: &ServicePort, ipv4: bool, clusters: &Clusters) -> Vec<&'a ServiceBackend> {
    let serves = |backend: &&ServiceBackend| {
        let reachable = clusters.get(backend.cluster.as_str()).is_some_and(|cluster| !cluster.blocked);
        reachable
            && backend.protocol == port.protocol
            && backend.port_name == port.name
            && backend.address.is_ipv4() == ipv4
    };
    let all: Vec<&ServiceBackend> = service.backends.iter().filter(serves).collect();
    let candidate = |backend: &&ServiceBackend| Candidate { local: backend.local, state: BackendState::Active };
    let candidates: Vec<Candidate> = all.iter().map(candidate).collect();
    active_backends(service.affinity, &candidates).into_iter().filter_map(|at| all.get(at).copied()).collect()
}

#[cfg(test)]
mod tests {
    use fabric_core::service::Affinity;

    use super::*;
    use crate::plan::fixtures::clusters;

    fn backend(address: &str, cluster: &str) -> ServiceBackend {
        ServiceBackend {
            address: address.parse().unwrap(),
            protocol: 6,
            port_name: "http".to_owned(),
            cluster: cluster.to_owned(),
            local: cluster == "eu",
        }
    }

    fn service(affinity: Affinity, backends: Vec<ServiceBackend>) -> ServiceRow {
        ServiceRow {
            kubernetes_namespace: "shop".to_owned(),
            name: "cart".to_owned(),
            frontends: vec!["172.30.0.10".parse().unwrap(), "fdfa:5e:1ce::a".parse().unwrap()],
            ports: vec![ServicePort { name: "http".to_owned(), protocol: 6, port: 80 }],
            backends,
            affinity,
        }
    }

    fn served_by(service: &ServiceRow) -> Vec<String> {
        let key = ServiceKey { frontend: "172.30.0.10:80".parse().unwrap(), protocol: 6 };
        services([service], &clusters())[&key].backends.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn affinity_chooses_the_side_and_falls_back() {
        let both = || vec![backend("10.64.1.2:8080", "eu"), backend("10.65.1.2:8080", "us")];
        assert_eq!(served_by(&service(Affinity::None, both())), ["10.64.1.2:8080", "10.65.1.2:8080"]);
        assert_eq!(served_by(&service(Affinity::Local, both())), ["10.64.1.2:8080"]);
        assert_eq!(served_by(&service(Affinity::Remote, both())), ["10.65.1.2:8080"]);
        let remote_only = vec![backend("10.65.1.2:8080", "us")];
        assert_eq!(served_by(&service(Affinity::Local, remote_only)), ["10.65.1.2:8080"]);
    }

    #[test]
    fn families_and_unknown_clusters_do_not_mix() {
        let row = service(Affinity::None, vec![backend("[fdfa:1::2]:8080", "eu"), backend("10.66.1.2:8080", "ap")]);
        assert!(served_by(&row).is_empty());
        let key = ServiceKey { frontend: "[fdfa:5e:1ce::a]:80".parse().unwrap(), protocol: 6 };
        assert_eq!(services([&row], &clusters())[&key].backends.len(), 1);
    }

    #[test]
    fn a_service_without_backends_is_still_there() {
        assert!(served_by(&service(Affinity::None, Vec::new())).is_empty());
    }
}
