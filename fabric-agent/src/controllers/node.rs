//! Makes the node's own devices and hangs the programs on them, once the cluster said what this node is.
//!
//! Writes the table row of the node itself. What an earlier process made is adopted: nothing is taken down.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use fabric_agent_datapath::{Datapath, IfIndex as DeviceIndex, Role};
use fabric_core::backoff::Backoff;
use fabric_core::config::NodeConfig;
use fabric_core::ids::{IfIndex, Mtu};
use fabric_core::mtu;
use sha2::{Digest as _, Sha256};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::health::Health;
use crate::plan::{self, Devices, LocalNode};
use crate::state_file::Registration;
use crate::sys::netlink::{Link, MacAddress, Netlink, VethEnd};
use crate::sys::sysctl;
use crate::tables::Tables;
use crate::wireguard_device::WireguardLink;

/// The node's own pair: the stack's side, and the programs'.
pub(crate) const HOST_DEVICE: &str = "fabric0";
pub(crate) const HOST_PEER: &str = "fabric0p";

const RETRY_FIRST: Duration = Duration::from_millis(500);
const RETRY_LAST: Duration = Duration::from_secs(10);
/// How often the devices are looked after when nothing changed.
const LOOK: Duration = Duration::from_secs(30);

/// The underlay as it is found at the start.
#[derive(Debug, Clone)]
pub(crate) struct Underlay {
    /// The first is the one that packets to other nodes leave by.
    pub(crate) devices: Vec<IfIndex>,
    pub(crate) mtu: Mtu,
}

impl Underlay {
    /// Finds the devices of the configuration, or those that carry the node's addresses.
    pub(crate) async fn find(netlink: &Netlink, config: &NodeConfig) -> anyhow::Result<Self> {
        let mut links: Vec<Link> = Vec::new();
        for name in &config.devices {
            links.push(netlink.existing_link(name).await?);
        }
        if config.devices.is_empty() {
            for address in &config.addresses {
                let device = netlink.device_of(*address).await?;
                let index = device.with_context(|| format!("no device of this machine has the address {address}"))?;
                let link = netlink.link_at(index).await?.context("the underlay device went away")?;
                if !links.iter().any(|known| known.index == link.index) {
                    links.push(link);
                }
            }
        }
        ensure!(!links.is_empty(), "no underlay device was found");
        let smallest = links.iter().map(|link| link.mtu).min().unwrap_or_default();
        // A device may take more than an IP packet can hold (loopback); what is over does not matter.
        let mtu = Mtu::new(smallest.min(u32::from(u16::MAX)))
            .with_context(|| format!("the underlay device {} is too small", links[0].name))?;
        Ok(Self { devices: links.iter().map(|link| link.index).collect(), mtu })
    }
}

/// The controller.
#[derive(Debug)]
pub(crate) struct NodeController {
    pub(crate) config: Arc<NodeConfig>,
    pub(crate) netlink: Arc<Netlink>,
    pub(crate) datapath: Arc<Datapath>,
    pub(crate) underlay: Underlay,
    pub(crate) wireguard: WireguardLink,
    pub(crate) tables: Arc<Tables>,
    pub(crate) health: Health,
}

impl NodeController {
    /// Runs until cancelled.
    pub(crate) async fn run(
        self,
        mut registration: watch::Receiver<Option<Registration>>,
        cancel: CancellationToken,
    ) -> anyhow::Result<()> {
        let mut backoff = Backoff::new(RETRY_FIRST, RETRY_LAST);
        loop {
            let current = registration.borrow_and_update().clone();
            let mut wait = LOOK;
            if let Some(current) = current {
                match self.set_up(&current).await {
                    Ok(local) => {
                        backoff.reset();
                        self.health.clear("devices");
                        self.publish(local);
                    }
                    Err(error) => {
                        wait = backoff.next(rand::random());
                        self.health.set_text("devices", format!("{error:#}"));
                    }
                }
            }
            tokio::select! {
                changed = registration.changed() => if changed.is_err() { return Ok(()) },
                () = tokio::time::sleep(wait) => {}
                () = cancel.cancelled() => return Ok(()),
            }
        }
    }

    fn publish(&self, local: LocalNode) {
        self.tables.local.send_if_modified(|known| {
            if known.as_deref() == Some(&local) {
                return false;
            }
            tracing::info!(cluster = %local.cluster, node = %local.name, ranges = ?local.ranges, "node is set up");
            *known = Some(Arc::new(local));
            true
        });
    }

    async fn set_up(&self, registration: &Registration) -> anyhow::Result<LocalNode> {
        sysctl::enable_forwarding()?;
        let mut local = self.describe(registration)?;
        let (size, too_small) = plan::mtu::endpoint(&local);
        match too_small {
            Some(error) => self.health.set("mtu", &error),
            None => self.health.clear("mtu"),
        }
        let pair = self.host_pair(&local, u32::from(size.value())).await?;
        (local.devices.host, local.devices.host_peer) = (pair.0.index, pair.1.index);
        self.hang_programs(&local).await?;
        self.netlink.set_up(pair.1.index).await?;
        self.netlink.set_up(pair.0.index).await?;
        self.addresses(pair.0.index, &local.overlay).await?;
        Ok(local)
    }

    /// The node, with placeholders for the pair that is not made yet.
    fn describe(&self, registration: &Registration) -> anyhow::Result<LocalNode> {
        let (node, cluster) = (&registration.node, &registration.cluster);
        let wireguard_mtu = mtu::wireguard(self.underlay.mtu, mtu::OuterFamily::Ipv4);
        let wireguard = self.wireguard.ensure(u32::from(wireguard_mtu)).context("the WireGuard device")?;
        let underlay = *self.underlay.devices.first().context("no underlay device")?;
        let mac = |end: &str| {
            let hash: [u8; 32] = Sha256::digest(format!("{}/{} {end}", node.cluster, node.name)).into();
            MacAddress::from_hash(&hash)
        };
        let devices = Devices {
            host: IfIndex::MIN,
            host_peer: IfIndex::MIN,
            host_mac: mac(HOST_DEVICE),
            host_peer_mac: mac(HOST_PEER),
            underlay,
            wireguard: Some(wireguard),
        };
        let machine = registration.machine.as_ref();
        Ok(LocalNode {
            cluster: node.cluster.clone(),
            cluster_id: cluster.id,
            name: node.name.clone(),
            machine: machine.is_some(),
            addresses: self.config.addresses.clone(),
            ranges: node.ranges.clone(),
            overlay: machine.map_or_else(|| node.overlay.clone(), |grant| grant.addresses.clone()),
            routing: cluster.routing,
            encryption: cluster.encryption,
            underlay_mtu: self.underlay.mtu,
            devices,
        })
    }

    /// The node's own pair; made where it is missing.
    async fn host_pair(&self, local: &LocalNode, mtu: u32) -> anyhow::Result<(Link, Link)> {
        let netlink = &self.netlink;
        let devices = &local.devices;
        let fits = |link: &Option<Link>, mac| link.as_ref().is_some_and(|link| link.veth && link.mac == Some(mac));
        let (near, far) = (netlink.link(HOST_DEVICE).await?, netlink.link(HOST_PEER).await?);
        if !(fits(&near, devices.host_mac) && fits(&far, devices.host_peer_mac)) {
            for link in near.iter().chain(&far) {
                ensure!(link.veth, "a device {} that is not ours is in the way", link.name);
                netlink.delete_link(link.index).await?;
            }
            let near = VethEnd { name: HOST_DEVICE, mac: devices.host_mac, mtu, netns: None };
            let far = VethEnd { name: HOST_PEER, mac: devices.host_peer_mac, mtu, netns: None };
            netlink.create_veth(near, far).await?;
        }
        let pair = (netlink.existing_link(HOST_DEVICE).await?, netlink.existing_link(HOST_PEER).await?);
        for (name, link) in [(HOST_DEVICE, &pair.0), (HOST_PEER, &pair.1)] {
            sysctl::node_device(name)?;
            if link.mtu != mtu {
                netlink.set_mtu(link.index, mtu).await?;
            }
        }
        // Nobody answers on the programs' side, so the stack must not ask; and it has no address of its own.
        netlink.set_no_arp(pair.0.index).await?;
        sysctl::set(&format!("ipv6/conf/{HOST_PEER}/disable_ipv6"), "1")?;
        Ok(pair)
    }

    async fn hang_programs(&self, local: &LocalNode) -> anyhow::Result<()> {
        let datapath = Arc::clone(&self.datapath);
        let config = local.config(self.config.wireguard.port);
        let (host_peer, wireguard) = (local.devices.host_peer, local.devices.wireguard);
        let underlay = self.underlay.devices.clone();
        let hang = move || -> anyhow::Result<()> {
            datapath.maps().set_config(&config)?;
            for device in underlay {
                datapath.attach(Role::Network, device_index(device)?)?;
            }
            if let Some(wireguard) = wireguard {
                datapath.attach(Role::WireGuard, device_index(wireguard)?)?;
            }
            datapath.attach(Role::Endpoint, device_index(host_peer)?)?;
            datapath.attach_cgroup()?;
            Ok(())
        };
        tokio::task::spawn_blocking(hang).await?.context("the programs")?;
        if let Some(wireguard) = wireguard {
            sysctl::node_device(self.wireguard.name.as_str())?;
            self.netlink.set_up(wireguard).await?;
        }
        Ok(())
    }

    /// Exactly these addresses on the stack's side, besides the link-local ones that the kernel makes.
    async fn addresses(&self, device: IfIndex, wanted: &[IpAddr]) -> anyhow::Result<()> {
        for address in wanted {
            self.netlink.add_address(device, *address).await?;
        }
        for (_, present) in self.netlink.addresses(Some(device)).await? {
            let link_local = matches!(present.ip(), IpAddr::V6(v6) if v6.is_unicast_link_local());
            if !link_local && !wanted.contains(&present.ip()) {
                self.netlink.delete_address(device, present.ip()).await?;
            }
        }
        Ok(())
    }
}

/// The data path's form of a device's number.
pub(crate) fn device_index(index: IfIndex) -> anyhow::Result<DeviceIndex> {
    Ok(DeviceIndex::new(index.value())?)
}
