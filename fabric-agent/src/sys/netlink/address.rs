//! Addresses of devices and permanent neighbour entries.

use std::net::IpAddr;

use fabric_core::ids::IfIndex;
use fabric_core::prefix::Prefix;
use futures::TryStreamExt as _;
use ipnetwork::IpNetwork;
use nix::errno::Errno;
use rtnetlink::packet_route::address::{AddressAttribute, AddressFlags, AddressMessage};

use super::{MacAddress, Netlink, NetlinkError, accept};

impl Netlink {
    /// All addresses, or those of one device, each with the length that it is configured with.
    pub(crate) async fn addresses(&self, device: Option<IfIndex>) -> Result<Vec<(IfIndex, IpNetwork)>, NetlinkError> {
        let mut request = self.handle.address().get();
        if let Some(index) = device {
            request = request.set_link_index_filter(index.value());
        }
        let all = request.execute().try_collect().await;
        let messages: Vec<AddressMessage> = all.map_err(NetlinkError::request("listing", "addresses"))?;
        Ok(messages.iter().filter_map(parse).collect())
    }

    /// Gives a device an address of full length, usable at once (no duplicate address detection).
    pub(crate) async fn add_address(&self, device: IfIndex, address: IpAddr) -> Result<(), NetlinkError> {
        let mut request = self.handle.address().add(device.value(), address, Prefix::host(address).length()).replace();
        if address.is_ipv6() {
            request.message_mut().attributes.push(AddressAttribute::Flags(AddressFlags::Nodad));
        }
        request.execute().await.map_err(NetlinkError::request("adding address", address))
    }

    /// Takes an address of full length away; one that is not there succeeds.
    pub(crate) async fn delete_address(&self, device: IfIndex, address: IpAddr) -> Result<(), NetlinkError> {
        let length = Prefix::host(address).length();
        let mut request = self.handle.address().add(device.value(), address, length);
        let message = std::mem::take(request.message_mut());
        let done = self.handle.address().del(message).execute().await;
        accept(done, &[Errno::EADDRNOTAVAIL, Errno::ENODEV]).map_err(NetlinkError::request("removing address", address))
    }

    /// Fixes the Ethernet address of a neighbour.
    pub(crate) async fn add_neighbour(
        &self,
        device: IfIndex,
        address: IpAddr,
        mac: MacAddress,
    ) -> Result<(), NetlinkError> {
        let request = self.handle.neighbours().add(device.value(), address).link_layer_address(&mac.0).replace();
        request.execute().await.map_err(NetlinkError::request("adding neighbour", address))
    }
}

fn parse(message: &AddressMessage) -> Option<(IfIndex, IpNetwork)> {
    let index = IfIndex::new(message.header.index).ok()?;
    let mut local = None;
    let mut address = None;
    for attribute in &message.attributes {
        match attribute {
            // On a point-to-point device `Address` is the other end and `Local` ours.
            AddressAttribute::Local(ip) => local = Some(*ip),
            AddressAttribute::Address(ip) => address = Some(*ip),
            _ => {}
        }
    }
    let network = IpNetwork::new(local.or(address)?, message.header.prefix_len).ok()?;
    Some((index, network))
}
