//! Devices: virtual Ethernet pairs, their state and size.

use std::fmt;
use std::str::FromStr;

use fabric_core::ids::IfIndex;
use futures::TryStreamExt as _;
use nix::errno::Errno;
use rtnetlink::packet_route::link::{InfoData, InfoKind, InfoVeth, LinkAttribute, LinkFlags, LinkInfo, LinkMessage};
use rtnetlink::{LinkMessageBuilder, LinkUnspec, LinkVeth};

use super::{Netlink, NetlinkError, accept, errno};
use crate::sys::netns::Netns;

/// An Ethernet address.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
#[serde(try_from = "String", into = "String")]
pub(crate) struct MacAddress(pub(crate) [u8; 6]);

/// Text that is no Ethernet address.
#[derive(Debug, thiserror::Error)]
#[error("{0:?} is no Ethernet address such as 02:00:00:00:00:01")]
pub(crate) struct InvalidMac(String);

impl MacAddress {
    /// A locally administered unicast address from a hash.
    pub(crate) fn from_hash(hash: &[u8; 32]) -> Self {
        let [first, rest @ ..] = hash;
        let mut mac = [0; 6];
        mac.iter_mut().zip(std::iter::once(&((first & 0xfc) | 0x02)).chain(rest)).for_each(|(to, from)| *to = *from);
        Self(mac)
    }
}

impl fmt::Display for MacAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (position, byte) in self.0.iter().enumerate() {
            write!(f, "{}{byte:02x}", if position == 0 { "" } else { ":" })?;
        }
        Ok(())
    }
}

impl fmt::Debug for MacAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for MacAddress {
    type Err = InvalidMac;
    fn from_str(text: &str) -> Result<Self, InvalidMac> {
        let invalid = || InvalidMac(text.chars().take(32).collect());
        let byte = |part: &str| match part.len() {
            2 if !part.starts_with('+') => u8::from_str_radix(part, 16).map_err(|_| invalid()),
            _ => Err(invalid()),
        };
        let bytes: Vec<u8> = text.split(':').map(byte).collect::<Result<_, _>>()?;
        bytes.try_into().map(Self).map_err(|_| invalid())
    }
}

impl TryFrom<String> for MacAddress {
    type Error = InvalidMac;
    fn try_from(text: String) -> Result<Self, InvalidMac> {
        text.parse()
    }
}

impl From<MacAddress> for String {
    fn from(mac: MacAddress) -> String {
        mac.to_string()
    }
}

/// A device as the kernel reports it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Link {
    pub(crate) index: IfIndex,
    pub(crate) name: String,
    /// Of an Ethernet device.
    pub(crate) mac: Option<MacAddress>,
    pub(crate) mtu: u32,
    pub(crate) up: bool,
    pub(crate) veth: bool,
}

/// One end of a veth pair to be made.
#[derive(Debug, Clone, Copy)]
pub(crate) struct VethEnd<'a> {
    pub(crate) name: &'a str,
    pub(crate) mac: MacAddress,
    pub(crate) mtu: u32,
    /// Where it shall live; `None` = the socket's namespace.
    pub(crate) netns: Option<&'a Netns>,
}

impl Netlink {
    /// The device of this name, if there is one.
    pub(crate) async fn link(&self, name: &str) -> Result<Option<Link>, NetlinkError> {
        let mut found = self.handle.link().get().match_name(name.to_owned()).execute();
        match found.try_next().await {
            Ok(Some(message)) => Ok(Some(parse(&message)?)),
            Ok(None) => Ok(None),
            Err(error) if errno(&error) == Some(Errno::ENODEV) => Ok(None),
            Err(error) => Err(NetlinkError::request("reading device", name)(error)),
        }
    }

    /// The device of this index, if there is one.
    pub(crate) async fn link_at(&self, index: IfIndex) -> Result<Option<Link>, NetlinkError> {
        let mut found = self.handle.link().get().match_index(index.value()).execute();
        match found.try_next().await {
            Ok(Some(message)) => Ok(Some(parse(&message)?)),
            Ok(None) => Ok(None),
            Err(error) if errno(&error) == Some(Errno::ENODEV) => Ok(None),
            Err(error) => Err(NetlinkError::request("reading device", index)(error)),
        }
    }

    /// The device of this name.
    pub(crate) async fn existing_link(&self, name: &str) -> Result<Link, NetlinkError> {
        self.link(name).await?.ok_or_else(|| NetlinkError::NoDevice { name: name.to_owned() })
    }

    /// Makes a veth pair, both ends down. Both are born in their namespaces with their final names, so no other
    /// program sees them halfway.
    pub(crate) async fn create_veth(&self, near: VethEnd<'_>, far: VethEnd<'_>) -> Result<(), NetlinkError> {
        let peer = end(LinkMessageBuilder::<LinkUnspec>::new(), far).build();
        let message = end(LinkMessageBuilder::<LinkVeth>::new_with_info_kind(InfoKind::Veth), near)
            .set_info_data(InfoData::Veth(InfoVeth::Peer(peer)))
            .build();
        let done = self.handle.link().add(message).execute().await;
        done.map_err(NetlinkError::request("creating device", near.name))
    }

    /// Removes a device; one that is not there succeeds.
    pub(crate) async fn delete_link(&self, index: IfIndex) -> Result<(), NetlinkError> {
        let done = self.handle.link().del(index.value()).execute().await;
        accept(done, &[Errno::ENODEV]).map_err(NetlinkError::request("removing device", index))
    }

    pub(crate) async fn set_up(&self, index: IfIndex) -> Result<(), NetlinkError> {
        self.change("switching on device", LinkUnspec::new_with_index(index.value()).up(), index).await
    }

    pub(crate) async fn set_down(&self, index: IfIndex) -> Result<(), NetlinkError> {
        self.change("switching off device", LinkUnspec::new_with_index(index.value()).down(), index).await
    }

    pub(crate) async fn set_mtu(&self, index: IfIndex, mtu: u32) -> Result<(), NetlinkError> {
        self.change("changing the MTU of device", LinkUnspec::new_with_index(index.value()).mtu(mtu), index).await
    }

    /// Makes a device that asks nobody for Ethernet addresses.
    pub(crate) async fn set_no_arp(&self, index: IfIndex) -> Result<(), NetlinkError> {
        self.change("changing device", LinkUnspec::new_with_index(index.value()).arp(false), index).await
    }

    async fn change(
        &self,
        what: &'static str,
        change: LinkMessageBuilder<LinkUnspec>,
        index: IfIndex,
    ) -> Result<(), NetlinkError> {
        self.handle.link().change(change.build()).execute().await.map_err(NetlinkError::request(what, index))
    }
}

fn end<T>(builder: LinkMessageBuilder<T>, end: VethEnd<'_>) -> LinkMessageBuilder<T> {
    let builder = builder
        .append_extra_attribute(LinkAttribute::IfName(end.name.to_owned()))
        .append_extra_attribute(LinkAttribute::Address(end.mac.0.to_vec()))
        .append_extra_attribute(LinkAttribute::Mtu(end.mtu));
    match end.netns {
        Some(netns) => builder.setns_by_fd(netns.raw_fd()),
        None => builder,
    }
}

fn parse(message: &LinkMessage) -> Result<Link, NetlinkError> {
    let mut link = Link {
        index: IfIndex::MIN,
        name: String::new(),
        mac: None,
        mtu: 0,
        up: message.header.flags.contains(LinkFlags::Up),
        veth: false,
    };
    for attribute in &message.attributes {
        match attribute {
            LinkAttribute::IfName(name) => link.name.clone_from(name),
            LinkAttribute::Mtu(mtu) => link.mtu = *mtu,
            LinkAttribute::Address(bytes) => link.mac = bytes.as_slice().try_into().ok().map(MacAddress),
            LinkAttribute::LinkInfo(infos) => {
                link.veth = infos.iter().any(|info| matches!(info, LinkInfo::Kind(InfoKind::Veth)));
            }
            _ => {}
        }
    }
    link.index = IfIndex::new(message.header.index)
        .map_err(|_| NetlinkError::Malformed { name: link.name.clone(), what: "an index" })?;
    Ok(link)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mac_addresses_parse_and_print() {
        let mac: MacAddress = "02:ab:00:00:00:0f".parse().unwrap();
        assert_eq!(mac.to_string(), "02:ab:00:00:00:0f");
        for bad in ["", "02:ab:00:00:00", "02:ab:00:00:00:0f:00", "2:ab:00:00:00:0f", "+2:ab:00:00:00:0f"] {
            assert!(bad.parse::<MacAddress>().is_err(), "{bad}");
        }
    }

    #[test]
    fn hashed_mac_is_local_and_unicast() {
        let mac = MacAddress::from_hash(&[0xff; 32]);
        assert_eq!(mac.0[0] & 3, 2);
    }
}
