//! Addresses with an identity (ipcache entries of the control plane). Written by the API's stream.

use std::net::IpAddr;

use clustermesh_api_proto::fabric::v1 as proto;
use fabric_core::ids::{Identity, KeyIndex};
use fabric_core::prefix::Prefix;
use serde::{Deserialize, Serialize};

use super::row::{InvalidRow, Reader};

/// An address or prefix, who has it and where.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct AddressRow {
    pub(crate) prefix: Prefix,
    pub(crate) identity: Identity,
    /// Underlay address of its node.
    pub(crate) host: Option<IpAddr>,
    pub(crate) encryption_key: KeyIndex,
    pub(crate) cluster: String,
    pub(crate) kubernetes_namespace: String,
    pub(crate) name: String,
}

impl AddressRow {
    pub(crate) fn parse(entry: &proto::IpEntry) -> Result<Self, InvalidRow> {
        let reader = Reader::new(format_args!("address {}", entry.prefix));
        Ok(Self {
            prefix: reader.parse("prefix", &entry.prefix)?,
            identity: reader.check("identity", Identity::new(entry.identity))?,
            host: reader.optional_address("host_ip", &entry.host_ip)?,
            encryption_key: KeyIndex::new(reader.check("encryption_key", u8::try_from(entry.encryption_key))?),
            cluster: entry.cluster.clone(),
            kubernetes_namespace: entry.kubernetes_namespace.clone(),
            name: entry.name.clone(),
        })
    }
}
