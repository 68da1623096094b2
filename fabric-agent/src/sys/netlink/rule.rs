//! The routing rule, one per family, that sends look-ups to the table of mesh routes before the main table: all but those
//! for packets that our programs send over the underlay, which must find the underlay's routes.

use fabric_ebpf_abi::mark;
use futures::TryStreamExt as _;
use nix::errno::Errno;
use rtnetlink::IpVersion;
use rtnetlink::packet_route::AddressFamily;
use rtnetlink::packet_route::route::RouteProtocol;
use rtnetlink::packet_route::rule::{RuleAction, RuleAttribute, RuleFlags, RuleMessage};

use super::route::{MESH_TABLE, PROTOCOL};
use super::{Netlink, NetlinkError, accept};

/// After the kernel's rule for local addresses (0), before that for the main table (32766).
const PRIORITY: u32 = 100;

impl Netlink {
    /// Makes sure that there is our rule for each family, once, and none of ours beside it.
    pub(crate) async fn ensure_rules(&self) -> Result<(), NetlinkError> {
        for version in [IpVersion::V4, IpVersion::V6] {
            let wanted = message(&version);
            let present = self.own_rules(version).await?;
            let kept = present.iter().position(|rule| same(rule, &wanted));
            if kept.is_none() {
                self.add_rule(wanted.clone()).await?;
            }
            let extras: Vec<_> = present.into_iter().enumerate().filter(|(at, _)| Some(*at) != kept).collect();
            let repair = !extras.is_empty();
            for (_, extra) in extras {
                self.delete_rule(extra).await?;
            }
            // The kernel removes the first rule that has what it was asked for: that may have been the right one.
            if repair {
                self.add_rule(wanted).await?;
            }
        }
        Ok(())
    }

    /// Removes every rule of ours.
    pub(crate) async fn delete_rules(&self) -> Result<(), NetlinkError> {
        for version in [IpVersion::V4, IpVersion::V6] {
            for rule in self.own_rules(version).await? {
                self.delete_rule(rule).await?;
            }
        }
        Ok(())
    }

    async fn own_rules(&self, version: IpVersion) -> Result<Vec<RuleMessage>, NetlinkError> {
        let all = self.handle.rule().get(version).execute().try_collect::<Vec<_>>().await;
        let all = all.map_err(NetlinkError::request("listing", "routing rules"))?;
        let ours = RuleAttribute::Protocol(RouteProtocol::Other(PROTOCOL));
        Ok(all.into_iter().filter(|rule| rule.attributes.contains(&ours)).collect())
    }

    async fn add_rule(&self, rule: RuleMessage) -> Result<(), NetlinkError> {
        let mut request = self.handle.rule().add();
        *request.message_mut() = rule;
        accept(request.execute().await, &[Errno::EEXIST])
            .map_err(NetlinkError::request("adding the routing rule for table", MESH_TABLE))
    }

    async fn delete_rule(&self, rule: RuleMessage) -> Result<(), NetlinkError> {
        accept(self.handle.rule().del(rule).execute().await, &[Errno::ENOENT])
            .map_err(NetlinkError::request("removing a routing rule for table", MESH_TABLE))
    }
}

fn message(version: &IpVersion) -> RuleMessage {
    let mut message = RuleMessage::default();
    message.header.family = match version {
        IpVersion::V4 => AddressFamily::Inet,
        IpVersion::V6 => AddressFamily::Inet6,
    };
    message.header.action = RuleAction::ToTable;
    message.header.flags = RuleFlags::Invert;
    message.attributes = vec![
        RuleAttribute::Priority(PRIORITY),
        RuleAttribute::FwMark(mark::UNDERLAY),
        RuleAttribute::FwMask(mark::MASK),
        RuleAttribute::Table(MESH_TABLE),
        RuleAttribute::Protocol(RouteProtocol::Other(PROTOCOL)),
    ];
    message
}

/// Whether a rule that the kernel told of does what the wanted one does. The kernel adds attributes that say nothing.
fn same(rule: &RuleMessage, wanted: &RuleMessage) -> bool {
    let selects = |attribute: &RuleAttribute| {
        !matches!(attribute, RuleAttribute::SuppressPrefixLen(u32::MAX) | RuleAttribute::SuppressIfGroup(u32::MAX))
    };
    let (theirs, ours) = (&rule.header, &wanted.header);
    theirs.action == ours.action
        && theirs.flags == ours.flags
        && (theirs.src_len, theirs.dst_len, theirs.tos) == (0, 0, 0)
        && wanted.attributes.iter().all(|attribute| rule.attributes.contains(attribute))
        && rule.attributes.iter().filter(|attribute| selects(attribute)).count() == wanted.attributes.len()
}

#[cfg(test)]
mod tests;
