//! The network between a lab's nodes: one router, one bridge per segment, real MTUs.

use std::net::{Ipv4Addr, Ipv6Addr};

use anyhow::{Context as _, Result};

use super::{Lab, run_ok};

/// Host part of a segment's gateway.
const GATEWAY: u8 = 254;

/// A router with segments; each segment is a bridge with a gateway address.
#[derive(Debug)]
pub struct Underlay {
    router: String,
    segments: Vec<Segment>,
}

#[derive(Debug)]
struct Segment {
    name: String,
    /// First three bytes of its /24.
    net: [u8; 3],
    mtu: u32,
}

impl Underlay {
    /// Makes the router.
    ///
    /// # Errors
    /// When `ip` refuses.
    pub fn new(lab: &Lab) -> Result<Self> {
        let router = lab.namespace("router")?;
        lab.exec(&router, "sysctl", &["-qw", "net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1"])?;
        Ok(Self { router, segments: Vec::new() })
    }

    /// The router's namespace: where captures see what crosses between segments.
    pub fn router(&self) -> &str {
        &self.router
    }

    /// Adds a segment: an IPv4 /24 and an IPv6 /64 made of the same numbers, gateway `.254`.
    ///
    /// # Errors
    /// When `ip` refuses.
    pub fn add_segment(&mut self, lab: &Lab, name: &str, net: [u8; 3], mtu: u32) -> Result<()> {
        let bridge = format!("br-{name}");
        let gateway = addresses(net, GATEWAY);
        let ip = |args: &[&str]| lab.exec(&self.router, "ip", args).map(drop);
        ip(&["link", "add", &bridge, "type", "bridge"])?;
        ip(&["link", "set", &bridge, "mtu", &mtu.to_string(), "up"])?;
        ip(&["address", "add", &format!("{}/24", gateway.v4), "dev", &bridge])?;
        ip(&["address", "add", &format!("{}/64", gateway.v6), "dev", &bridge, "nodad"])?;
        self.segments.push(Segment { name: name.to_owned(), net, mtu });
        Ok(())
    }

    /// Plugs a namespace into a segment: `eth0` with address `host` and the default route.
    ///
    /// # Errors
    /// When there is no such segment or `ip` refuses.
    pub fn plug(&self, lab: &Lab, namespace: &str, segment: &str, host: u8) -> Result<Addresses> {
        let known = self.segments.iter().find(|s| s.name == segment);
        let segment = known.with_context(|| format!("the underlay has no segment {segment}"))?;
        let port = format!("p{}-{host}", segment.name);
        let mtu = segment.mtu.to_string();
        run_ok(
            "ip",
            &[
                "-n",
                &self.router,
                "link",
                "add",
                &port,
                "mtu",
                &mtu,
                "type",
                "veth",
                "peer",
                "name",
                "eth0",
                "mtu",
                &mtu,
                "netns",
                namespace,
            ],
        )?;
        lab.exec(&self.router, "ip", &["link", "set", &port, "master", &format!("br-{}", segment.name), "up"])?;
        let own = addresses(segment.net, host);
        let gateway = addresses(segment.net, GATEWAY);
        let ip = |args: &[&str]| lab.exec(namespace, "ip", args).map(drop);
        ip(&["address", "add", &format!("{}/24", own.v4), "dev", "eth0"])?;
        ip(&["address", "add", &format!("{}/64", own.v6), "dev", "eth0", "nodad"])?;
        ip(&["link", "set", "eth0", "up"])?;
        ip(&["route", "add", "default", "via", &gateway.v4.to_string()])?;
        ip(&["route", "add", "default", "via", &gateway.v6.to_string()])?;
        Ok(own)
    }

    /// A static route of the router's, as native routing without encryption needs for each node's ranges.
    ///
    /// # Errors
    /// When `ip` refuses.
    pub fn route(&self, lab: &Lab, prefix: &str, via: &Addresses) -> Result<()> {
        let via = if prefix.contains(':') { via.v6.to_string() } else { via.v4.to_string() };
        lab.exec(&self.router, "ip", &["route", "replace", prefix, "via", &via]).map(drop)
    }
}

/// What a plugged namespace is called on the underlay.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Addresses {
    /// Its IPv4 address.
    pub v4: Ipv4Addr,
    /// Its IPv6 address.
    pub v6: Ipv6Addr,
}

fn addresses(net: [u8; 3], host: u8) -> Addresses {
    let v6 = Ipv6Addr::new(0xfd31, u16::from(net[0]), u16::from(net[1]), u16::from(net[2]), 0, 0, 0, u16::from(host));
    Addresses { v4: Ipv4Addr::new(net[0], net[1], net[2], host), v6 }
}
