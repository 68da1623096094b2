//! The node's endpoints as the programs know them.

use std::collections::BTreeMap;
use std::net::IpAddr;

use fabric_agent_datapath::IfIndex as DeviceIndex;
use fabric_agent_datapath::rows::{DeviceEntry, EndpointEntry, EndpointFlags, Mac};
use fabric_core::ids::{Identity, IfIndex};

use super::LocalNode;
use crate::tables::endpoint::EndpointRow;

/// Whether a policy selects an identity, by direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Enforcement {
    pub(crate) ingress: bool,
    pub(crate) egress: bool,
}

/// The node's own number among its endpoints.
pub(crate) const HOST_NUMBER: u16 = 1;

/// What the programs know of this node's endpoints.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Endpoints {
    /// Who sends from a device.
    pub(crate) devices: BTreeMap<DeviceIndex, DeviceEntry>,
    /// Where an address is.
    pub(crate) addresses: BTreeMap<IpAddr, EndpointEntry>,
}

/// Endpoints whose identity is known, and the node itself.
pub(crate) fn endpoints<'a>(
    rows: impl IntoIterator<Item = &'a EndpointRow>,
    enforcement: impl Fn(Identity) -> Enforcement,
    local: &LocalNode,
) -> Endpoints {
    let mut plan = Endpoints::default();
    plan.add_node(local);
    for row in rows {
        let (Some(identity), Some(device)) = (row.identity, device(row.device)) else { continue };
        let enforced = enforcement(identity);
        let flags = EndpointFlags {
            enforce_ingress: enforced.ingress,
            enforce_egress: enforced.egress,
            host: false,
            same_namespace: row.is_machine(),
        };
        let entry = EndpointEntry {
            device,
            identity: identity.value(),
            mac: Mac(row.mac.0),
            host_mac: Mac(row.host_mac.0),
            id: row.number,
            flags,
        };
        plan.add(&row.addresses, entry);
    }
    plan
}

impl Endpoints {
    /// The node's own addresses. On a machine those of `fabric0` are the workload's.
    fn add_node(&mut self, local: &LocalNode) {
        let Some(device) = device(local.devices.host_peer) else { return };
        let entry = EndpointEntry {
            device,
            identity: Identity::HOST.value(),
            mac: Mac(local.devices.host_mac.0),
            host_mac: Mac(local.devices.host_peer_mac.0),
            id: HOST_NUMBER,
            flags: EndpointFlags { host: true, same_namespace: true, ..EndpointFlags::default() },
        };
        if !local.machine {
            self.add(&local.overlay, entry);
        }
        self.addresses.extend(local.addresses.iter().map(|address| (*address, entry)));
    }

    fn add(&mut self, addresses: &[IpAddr], entry: EndpointEntry) {
        let ipv4 = addresses.iter().find_map(|one| if let IpAddr::V4(v4) = one { Some(*v4) } else { None });
        let ipv6 = addresses.iter().find_map(|one| if let IpAddr::V6(v6) = one { Some(*v6) } else { None });
        let sender = DeviceEntry { ipv4, ipv6, identity: entry.identity, id: entry.id, flags: entry.flags };
        self.devices.insert(entry.device, sender);
        self.addresses.extend(addresses.iter().map(|address| (*address, entry)));
    }
}

fn device(index: IfIndex) -> Option<DeviceIndex> {
    DeviceIndex::new(index.value()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::fixtures::{endpoint, local};

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn endpoints_are_enforced_as_their_identity_is() {
        let rows = [endpoint("shop/web", "10.64.1.2", 65_836), endpoint("shop/db", "10.64.1.3", 65_837)];
        let enforcement = |identity: Identity| Enforcement { ingress: identity.value() == 65_837, egress: false };
        let plan = endpoints(&rows, enforcement, &local());
        let flags = |text: &str| plan.addresses[&address(text)].flags;
        assert!(!flags("10.64.1.2").enforce_ingress);
        assert!(flags("10.64.1.3").enforce_ingress && !flags("10.64.1.3").enforce_egress);
    }

    #[test]
    fn every_address_of_the_node_is_its_stacks() {
        let plan = endpoints(&[], |_| Enforcement::default(), &local());
        for text in ["10.64.1.1", "192.0.2.1"] {
            let entry = plan.addresses[&address(text)];
            assert!(entry.flags.host && entry.flags.same_namespace && entry.identity == 1, "{text}");
        }
        let sender = plan.devices.values().next().unwrap();
        assert_eq!(sender.ipv4, Some([10, 64, 1, 1].into()));
    }

    #[test]
    fn a_machine_is_the_workload_on_fabric0() {
        let mut machine = local();
        machine.machine = true;
        let mut row = endpoint("shop/db", "10.64.1.1", 65_837);
        row.place = crate::tables::endpoint::Place::Machine;
        row.device = machine.devices.host_peer;
        let plan = endpoints(&[row], |_| Enforcement::default(), &machine);
        let entry = plan.addresses[&address("10.64.1.1")];
        assert!(!entry.flags.host && entry.flags.same_namespace);
        assert_eq!((entry.identity, plan.devices.len()), (65_837, 1));
        assert_eq!(plan.addresses[&address("192.0.2.1")].identity, 1);
    }

    #[test]
    fn an_endpoint_without_identity_is_not_there() {
        let mut row = endpoint("shop/web", "10.64.1.2", 65_836);
        row.identity = None;
        let plan = endpoints(&[row], |_| Enforcement::default(), &local());
        assert!(!plan.addresses.contains_key(&address("10.64.1.2")));
    }
}
