//! The kernel's interfaces: netlink, network namespaces, sysctls, files with the right mode.
//!
//! Nothing here knows what a cluster is.

pub(crate) mod files;
pub(crate) mod netlink;
pub(crate) mod netns;
pub(crate) mod sysctl;
