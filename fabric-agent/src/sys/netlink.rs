//! Links, addresses, routes, routing rules and neighbour entries, over rtnetlink.
//!
//! Every operation is idempotent: what is there already is replaced, what is gone counts as removed.

mod address;
mod link;
mod route;
mod rule;

use std::net::IpAddr;

use fabric_core::ids::IfIndex;
use fabric_core::prefix::Prefix;
use rtnetlink::Handle;

use super::netns::{Netns, NetnsError};
use crate::tasks::Background;

pub(crate) use link::{Link, MacAddress, VethEnd};
pub(crate) use route::{Route, RouteTarget, Table};

/// Why the kernel's configuration could not be read or changed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NetlinkError {
    #[error("the netlink socket cannot be opened")]
    Socket(#[source] std::io::Error),
    #[error(transparent)]
    Netns(#[from] NetnsError),
    #[error("{what} {object}")]
    Request {
        what: &'static str,
        object: String,
        #[source]
        source: rtnetlink::Error,
    },
    #[error("there is no device {name}")]
    NoDevice { name: String },
    #[error("the kernel reported a device without {what}: {name}")]
    Malformed { name: String, what: &'static str },
}

impl NetlinkError {
    fn request(what: &'static str, object: impl std::fmt::Display) -> impl FnOnce(rtnetlink::Error) -> Self {
        let object = format!("{object}");
        move |source| Self::Request { what, object, source }
    }
}

fn errno(error: &rtnetlink::Error) -> Option<nix::errno::Errno> {
    match error {
        rtnetlink::Error::NetlinkError(message) => Some(nix::errno::Errno::from_raw(message.raw_code().abs())),
        _ => None,
    }
}

/// Takes some kernel errors for success.
fn accept(result: Result<(), rtnetlink::Error>, accepted: &[nix::errno::Errno]) -> Result<(), rtnetlink::Error> {
    match result {
        Err(error) if errno(&error).is_some_and(|code| accepted.contains(&code)) => Ok(()),
        other => other,
    }
}

/// A netlink socket of one network namespace.
#[derive(Debug)]
pub(crate) struct Netlink {
    handle: Handle,
    _driver: Background,
}

impl Netlink {
    /// Opens a socket in the caller's namespace.
    pub(crate) fn open() -> Result<Self, NetlinkError> {
        let (connection, handle, _) = rtnetlink::new_connection().map_err(NetlinkError::Socket)?;
        Ok(Self { handle, _driver: Background::start(connection) })
    }

    /// Opens a socket in another namespace; a socket stays in the namespace that it was made in.
    pub(crate) async fn open_in(netns: &Netns) -> Result<Self, NetlinkError> {
        netns.run(Self::open).await?
    }

    /// The index of the device that holds this address.
    pub(crate) async fn device_of(&self, address: IpAddr) -> Result<Option<IfIndex>, NetlinkError> {
        let all = self.addresses(None).await?;
        Ok(all.into_iter().find(|(_, prefix)| prefix.ip() == address).map(|(index, _)| index))
    }

    /// The prefix that a device's address of this value is configured with: what is on its own link.
    pub(crate) async fn on_link(&self, device: IfIndex) -> Result<Vec<Prefix>, NetlinkError> {
        let all = self.addresses(Some(device)).await?;
        Ok(all.into_iter().map(|(_, network)| Prefix::from(network)).collect())
    }
}
