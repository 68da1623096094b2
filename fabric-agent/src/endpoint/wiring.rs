//! The devices of one workload: a veth pair between the node and the workload's namespace, with everything on it.
//!
//! Inside: the addresses at full length, default routes by the gateways 169.254.1.1 and fe80::1, whose Ethernet address
//! is fixed to the node's side, so nobody answers for them. On the node: a route and a neighbour entry per address.
//! The node's side stays down until [`Wiring::open`]: programs and maps come first.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use fabric_core::ids::IfIndex;
use fabric_core::prefix::Prefix;

use crate::sys::netlink::{Link, MacAddress, Netlink, NetlinkError, Route, RouteTarget, Table, VethEnd};
use crate::sys::netns::{Netns, NetnsError};
use crate::sys::sysctl::{self, SysctlError};

/// The gateways that default routes name. Nothing has these addresses; their neighbour entries are permanent.
pub(crate) const GATEWAY_IPV4: IpAddr = IpAddr::V4(Ipv4Addr::new(169, 254, 1, 1));
pub(crate) const GATEWAY_IPV6: IpAddr = IpAddr::V6(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1));

/// The gateway of an address's family.
pub(crate) fn gateway(ipv4: bool) -> IpAddr {
    if ipv4 { GATEWAY_IPV4 } else { GATEWAY_IPV6 }
}

/// Why a workload's devices could not be made.
#[derive(Debug, thiserror::Error)]
pub(crate) enum WiringError {
    #[error(transparent)]
    Netlink(#[from] NetlinkError),
    #[error(transparent)]
    Netns(#[from] NetnsError),
    #[error(transparent)]
    Sysctl(#[from] SysctlError),
    #[error("network namespace {netns} has a device {interface} already")]
    NameTaken { netns: String, interface: String },
}

/// What a workload's devices are to be like.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Wiring {
    /// The node's side.
    pub(crate) host_interface: String,
    pub(crate) host_mac: MacAddress,
    /// Inside.
    pub(crate) interface: String,
    pub(crate) mac: MacAddress,
    pub(crate) addresses: Vec<IpAddr>,
    pub(crate) mtu: u32,
    /// Destinations that take less than `mtu`.
    pub(crate) narrower: Vec<(Prefix, u32)>,
    /// The node's own overlay addresses: what its processes talk to the workload from.
    pub(crate) host_sources: Vec<IpAddr>,
}

impl Wiring {
    /// Makes what is missing, all of it down on the node's side; gives the node's device.
    ///
    /// A pair that is there already and fits is kept as it is, with its state.
    pub(crate) async fn make(&self, host: &Netlink, netns: &Netns) -> Result<Link, WiringError> {
        let inside = Netlink::open_in(netns).await?;
        if let Some(link) = self.existing(host, &inside).await? {
            self.dress(&inside, netns).await?;
            return Ok(link);
        }
        if inside.link(&self.interface).await?.is_some() {
            let (netns, interface) = (netns.path().display().to_string(), self.interface.clone());
            return Err(WiringError::NameTaken { netns, interface });
        }
        let near = VethEnd { name: &self.host_interface, mac: self.host_mac, mtu: self.mtu, netns: None };
        let far = VethEnd { name: &self.interface, mac: self.mac, mtu: self.mtu, netns: Some(netns) };
        host.create_veth(near, far).await?;
        let link = host.existing_link(&self.host_interface).await?;
        sysctl::node_device(&self.host_interface)?;
        self.dress(&inside, netns).await?;
        Ok(link)
    }

    /// The node's device of an earlier pair, when both ends are there and fit. One that does not fit is removed.
    async fn existing(&self, host: &Netlink, inside: &Netlink) -> Result<Option<Link>, WiringError> {
        let Some(link) = host.link(&self.host_interface).await? else { return Ok(None) };
        let peer = inside.link(&self.interface).await?;
        let fits = peer.is_some_and(|peer| peer.veth && peer.mac == Some(self.mac)) && link.mac == Some(self.host_mac);
        if !fits {
            host.delete_link(link.index).await?;
            return Ok(None);
        }
        if link.mtu != self.mtu {
            host.set_mtu(link.index, self.mtu).await?;
        }
        Ok(Some(link))
    }

    /// Everything inside the namespace.
    async fn dress(&self, inside: &Netlink, netns: &Netns) -> Result<(), WiringError> {
        let name = self.interface.clone();
        netns
            .run(move || {
                // Container runtimes switch IPv6 off on new devices.
                sysctl::set(&format!("ipv6/conf/{name}/disable_ipv6"), "0")?;
                sysctl::own_device(&name)
            })
            .await??;
        let loopback = inside.existing_link("lo").await?;
        inside.set_up(loopback.index).await?;
        let device = inside.existing_link(&self.interface).await?;
        if device.mtu != self.mtu {
            inside.set_mtu(device.index, self.mtu).await?;
        }
        inside.set_up(device.index).await?;
        for address in &self.addresses {
            inside.add_address(device.index, *address).await?;
        }
        for ipv4 in self.families() {
            inside.add_neighbour(device.index, gateway(ipv4), self.host_mac).await?;
        }
        self.route(inside, device.index).await
    }

    async fn route(&self, inside: &Netlink, device: IfIndex) -> Result<(), WiringError> {
        let wanted = self.routes_inside(device);
        for route in &wanted {
            inside.replace_route(route).await?;
        }
        let keeps = |old: &Route| wanted.iter().any(|new| new.destination == old.destination);
        for old in inside.own_routes().await?.iter().filter(|old| !keeps(old)) {
            inside.delete_route(old).await?;
        }
        Ok(())
    }

    fn families(&self) -> impl Iterator<Item = bool> {
        [true, false].into_iter().filter(|ipv4| self.addresses.iter().any(|address| address.is_ipv4() == *ipv4))
    }

    /// Routes inside the workload's namespace.
    fn routes_inside(&self, device: IfIndex) -> Vec<Route> {
        let via = |destination: Prefix, mtu: u32| Route {
            table: Table::Main,
            target: RouteTarget::Via(device, gateway(destination.is_ipv4())),
            mtu: Some(mtu),
            ..Route::device(destination, device)
        };
        let default = |ipv4| if ipv4 { Prefix::all_ipv4() } else { Prefix::all_ipv6() };
        let narrower = |ipv4| self.narrower.iter().filter(move |(prefix, _)| prefix.is_ipv4() == ipv4);
        self.families()
            .flat_map(|ipv4| {
                let defaults = std::iter::once(via(default(ipv4), self.mtu));
                defaults.chain(narrower(ipv4).map(move |(prefix, mtu)| via(*prefix, *mtu)))
            })
            .collect()
    }

    /// Lets packets through: the node's side comes up, its routes and neighbour entries are set.
    pub(crate) async fn open(&self, host: &Netlink, device: IfIndex) -> Result<(), WiringError> {
        host.set_up(device).await?;
        for address in &self.addresses {
            host.add_neighbour(device, *address, self.mac).await?;
        }
        for route in routes_outside(&self.addresses, device, self.mtu, &self.host_sources) {
            host.replace_route(&route).await?;
        }
        Ok(())
    }
}

/// Routes on the node to a workload's addresses; `sources` are what the node's processes talk to it from.
pub(crate) fn routes_outside(addresses: &[IpAddr], device: IfIndex, mtu: u32, sources: &[IpAddr]) -> Vec<Route> {
    let source = |ipv4| sources.iter().copied().find(|source| source.is_ipv4() == ipv4);
    let route = |address: &IpAddr| Route {
        source: source(address.is_ipv4()),
        mtu: Some(mtu),
        ..Route::device(Prefix::host(*address), device)
    };
    addresses.iter().map(route).collect()
}

#[cfg(test)]
mod tests;
