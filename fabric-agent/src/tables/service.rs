//! Services with their backends of all clusters. Written by the API's stream.

use std::net::{IpAddr, SocketAddr};

use clustermesh_api_proto::fabric::v1 as proto;
use fabric_core::service::Affinity;
use serde::{Deserialize, Serialize};

use super::row::{InvalidRow, Reader};

/// Names a service: namespace, name.
pub(crate) type ServiceKey = (String, String);

/// A port of a service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ServicePort {
    pub(crate) name: String,
    /// IP protocol number.
    pub(crate) protocol: u8,
    pub(crate) port: u16,
}

/// One of those who serve.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ServiceBackend {
    pub(crate) address: SocketAddr,
    pub(crate) protocol: u8,
    pub(crate) port_name: String,
    pub(crate) cluster: String,
    pub(crate) local: bool,
}

/// A service of the local cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ServiceRow {
    pub(crate) kubernetes_namespace: String,
    pub(crate) name: String,
    pub(crate) frontends: Vec<IpAddr>,
    pub(crate) ports: Vec<ServicePort>,
    pub(crate) backends: Vec<ServiceBackend>,
    #[serde(with = "affinity_text")]
    pub(crate) affinity: Affinity,
}

impl ServiceRow {
    pub(crate) fn parse(service: &proto::Service) -> Result<Self, InvalidRow> {
        let reader = Reader::new(format_args!("service {}/{}", service.kubernetes_namespace, service.name));
        let port = |port: &proto::ServicePort| {
            Ok(ServicePort {
                name: port.name.clone(),
                protocol: protocol(&reader, &port.protocol)?,
                port: reader.check("port", u16::try_from(port.port))?,
            })
        };
        let backend = |backend: &proto::ServiceBackend| {
            let port = reader.check("backend port", u16::try_from(backend.port))?;
            Ok(ServiceBackend {
                address: SocketAddr::new(reader.parse("backend address", &backend.address)?, port),
                protocol: protocol(&reader, &backend.protocol)?,
                port_name: backend.port_name.clone(),
                cluster: backend.cluster.clone(),
                local: backend.local,
            })
        };
        Ok(Self {
            kubernetes_namespace: service.kubernetes_namespace.clone(),
            name: service.name.clone(),
            frontends: reader.parse_all("frontends", &service.frontends)?,
            ports: service.ports.iter().map(port).collect::<Result<_, InvalidRow>>()?,
            backends: service.backends.iter().map(backend).collect::<Result<_, InvalidRow>>()?,
            affinity: match service.affinity.as_str() {
                "" => Affinity::None,
                named => reader.parse("affinity", named)?,
            },
        })
    }

    pub(crate) fn key(&self) -> ServiceKey {
        (self.kubernetes_namespace.clone(), self.name.clone())
    }
}

fn protocol(reader: &Reader, name: &str) -> Result<u8, InvalidRow> {
    match name {
        "TCP" | "" => Ok(6),
        "UDP" => Ok(17),
        "SCTP" => Ok(132),
        other => Err(reader.refuse("protocol", format_args!("{other:?} is not known"))),
    }
}

/// Affinity as the word that users write.
mod affinity_text {
    use fabric_core::service::Affinity;
    use serde::{Deserialize as _, Deserializer, Serializer};

    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks for a reference")]
    pub(super) fn serialize<S: Serializer>(affinity: &Affinity, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(affinity.as_str())
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Affinity, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}
