//! Routes of ours. They carry a protocol number of their own, by which they are found again.

use std::net::IpAddr;

use fabric_core::ids::IfIndex;
use fabric_core::prefix::Prefix;
use futures::TryStreamExt as _;
use nix::errno::Errno;
use rtnetlink::packet_route::AddressFamily;
use rtnetlink::packet_route::route::{
    RouteAddress, RouteAttribute, RouteFlags, RouteHeader, RouteMessage, RouteMetric, RouteProtocol, RouteScope,
    RouteType,
};

use super::{Netlink, NetlinkError, accept};

/// Number by which routes of ours are known (`rtm_protocol`): none of iproute2's `rt_protos` has it.
pub(crate) const PROTOCOL: u8 = 0xfa;

/// Number of the table of routes to the mesh. Others' tables seldom have numbers like this; nothing else is in it.
pub(crate) const MESH_TABLE: u32 = 2500;

/// Which look-ups meet a route.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Table {
    /// All but those for packets that our programs send over the underlay, and before the main table (see `rule`).
    Mesh,
    /// All, as everybody's routes.
    Main,
}

/// Where a route leads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum RouteTarget {
    /// Out of a device, to the destination itself.
    Device(IfIndex),
    /// Out of a device, through a neighbour.
    Via(IfIndex, IpAddr),
    /// Nowhere: senders on this machine get an error.
    Blackhole,
}

/// A route of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Route {
    pub(crate) table: Table,
    pub(crate) destination: Prefix,
    /// Lower wins among routes of one destination; 0 = the family's default.
    pub(crate) metric: u32,
    pub(crate) target: RouteTarget,
    /// Address that sockets without one get.
    pub(crate) source: Option<IpAddr>,
    pub(crate) mtu: Option<u32>,
}

impl Route {
    /// A mesh route to a prefix by a device, nothing else said.
    pub(crate) fn device(destination: Prefix, device: IfIndex) -> Self {
        Self {
            table: Table::Mesh,
            destination,
            metric: 0,
            target: RouteTarget::Device(device),
            source: None,
            mtu: None,
        }
    }
}

const MAIN_TABLE: u32 = RouteHeader::RT_TABLE_MAIN as u32;

/// The kernel's metric for IPv6 routes that name none (`IP6_RT_PRIO_USER`).
const IPV6_DEFAULT_METRIC: u32 = 1024;

impl Netlink {
    /// Adds a route, or replaces the one of the same destination and metric in one step.
    pub(crate) async fn replace_route(&self, route: &Route) -> Result<(), NetlinkError> {
        let done = self.handle.route().add(message(route)).replace().execute().await;
        done.map_err(NetlinkError::request("adding the route to", route.destination))
    }

    /// Removes a route of ours; one that is not there succeeds.
    pub(crate) async fn delete_route(&self, route: &Route) -> Result<(), NetlinkError> {
        let done = self.handle.route().del(message(route)).execute().await;
        accept(done, &[Errno::ESRCH, Errno::ENODEV])
            .map_err(NetlinkError::request("removing the route to", route.destination))
    }

    /// All routes of ours in the namespace.
    pub(crate) async fn own_routes(&self) -> Result<Vec<Route>, NetlinkError> {
        let mut routes = Vec::new();
        for family in [AddressFamily::Inet, AddressFamily::Inet6] {
            let mut query = RouteMessage::default();
            query.header.address_family = family;
            let mut answers = self.handle.route().get(query).execute();
            while let Some(answer) = answers.try_next().await.map_err(NetlinkError::request("listing", "routes"))? {
                if answer.header.protocol == RouteProtocol::Other(PROTOCOL) {
                    routes.extend(parse(&answer));
                }
            }
        }
        Ok(routes)
    }
}

fn message(route: &Route) -> RouteMessage {
    let mut message = RouteMessage::default();
    let header = &mut message.header;
    match route.table {
        Table::Main => header.table = RouteHeader::RT_TABLE_MAIN,
        // Above what the header's field holds.
        Table::Mesh => message.attributes.push(RouteAttribute::Table(MESH_TABLE)),
    }
    header.protocol = RouteProtocol::Other(PROTOCOL);
    header.scope = RouteScope::Universe;
    header.kind = RouteType::Unicast;
    header.address_family = if route.destination.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    header.destination_prefix_length = route.destination.length();
    match route.target {
        RouteTarget::Device(device) => {
            if route.destination.is_ipv4() {
                header.scope = RouteScope::Link;
            }
            message.attributes.push(RouteAttribute::Oif(device.value()));
        }
        RouteTarget::Via(device, gateway) => {
            header.flags |= RouteFlags::Onlink;
            message.attributes.push(RouteAttribute::Gateway(address(gateway)));
            message.attributes.push(RouteAttribute::Oif(device.value()));
        }
        RouteTarget::Blackhole => header.kind = RouteType::BlackHole,
    }
    message.attributes.push(RouteAttribute::Destination(address(route.destination.address())));
    message.attributes.extend(route.source.map(|source| RouteAttribute::PrefSource(address(source))));
    if route.metric != 0 {
        message.attributes.push(RouteAttribute::Priority(route.metric));
    }
    message.attributes.extend(route.mtu.map(|mtu| RouteAttribute::Metrics(vec![RouteMetric::Mtu(mtu)])));
    message
}

fn address(ip: IpAddr) -> RouteAddress {
    match ip {
        IpAddr::V4(v4) => RouteAddress::Inet(v4),
        IpAddr::V6(v6) => RouteAddress::Inet6(v6),
    }
}

fn ip(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(v4) => Some(IpAddr::V4(*v4)),
        RouteAddress::Inet6(v6) => Some(IpAddr::V6(*v6)),
        _ => None,
    }
}

fn parse(message: &RouteMessage) -> Option<Route> {
    let ipv4 = message.header.address_family == AddressFamily::Inet;
    let (mut destination, mut device, mut gateway, mut source, mut mtu, mut metric) = (None, None, None, None, None, 0);
    let mut table = u32::from(message.header.table);
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Table(number) => table = *number,
            RouteAttribute::Destination(to) => destination = ip(to),
            RouteAttribute::Oif(index) => device = IfIndex::new(*index).ok(),
            RouteAttribute::Gateway(by) => gateway = ip(by),
            RouteAttribute::PrefSource(from) => source = ip(from),
            RouteAttribute::Priority(priority) => metric = *priority,
            RouteAttribute::Metrics(metrics) => {
                mtu = metrics.iter().find_map(|one| if let RouteMetric::Mtu(size) = one { Some(*size) } else { None });
            }
            _ => {}
        }
    }
    if !ipv4 && metric == IPV6_DEFAULT_METRIC {
        metric = 0;
    }
    let any = if ipv4 { Prefix::all_ipv4() } else { Prefix::all_ipv6() }.address();
    let destination = Prefix::new(destination.unwrap_or(any), message.header.destination_prefix_length).ok()?;
    let target = match (message.header.kind, gateway) {
        (RouteType::BlackHole, _) => RouteTarget::Blackhole,
        (_, Some(gateway)) => RouteTarget::Via(device?, gateway),
        (_, None) => RouteTarget::Device(device?),
    };
    let table = match table {
        MESH_TABLE => Table::Mesh,
        MAIN_TABLE => Table::Main,
        _ => return None,
    };
    Some(Route { table, destination, metric, target, source, mtu })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_back_the_same() {
        let device = IfIndex::new(7_u32).unwrap();
        let mut by_device = Route::device("10.64.0.0/16".parse().unwrap(), device);
        by_device.source = Some("10.64.1.1".parse().unwrap());
        by_device.mtu = Some(1390);
        let via = RouteTarget::Via(device, "fe80::1".parse().unwrap());
        let through =
            Route { target: via, metric: 5, table: Table::Main, ..Route::device("fd00::/48".parse().unwrap(), device) };
        let nowhere = Route { target: RouteTarget::Blackhole, ..Route::device("fd01::/48".parse().unwrap(), device) };
        let default = Route { target: via, ..Route::device(Prefix::all_ipv6(), device) };
        for route in [by_device, through, nowhere, default] {
            assert_eq!(parse(&message(&route)), Some(route));
        }
    }
}
