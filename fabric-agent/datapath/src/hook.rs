//! Which program hangs where, and what its pin is called.

use std::fmt;

use aya_obj::generated::bpf_attach_type;

/// The number of a device in this process's network namespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct IfIndex(u32);

/// 0 is no device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a device's number is never 0")]
pub struct IfIndexError;

impl IfIndex {
    /// A device's number.
    ///
    /// # Errors
    /// When it is 0.
    pub fn new(number: u32) -> Result<Self, IfIndexError> {
        if number == 0 { Err(IfIndexError) } else { Ok(Self(number)) }
    }

    /// The number, as the kernel takes it.
    pub fn number(self) -> u32 {
        self.0
    }
}

impl fmt::Display for IfIndex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// What a device is to the data path; decides which programs hang on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// The host side of an endpoint's pair.
    Endpoint,
    /// The program side of the node's own pair (`fabric0p`): what comes to it was judged before.
    Host,
    /// A device of the underlay.
    Network,
    /// The WireGuard device.
    WireGuard,
}

impl Role {
    /// The hooks that a device of this role gets.
    pub fn hooks(self) -> &'static [Hook] {
        match self {
            Self::Endpoint => &[Hook::FromEndpoint, Hook::ToEndpoint],
            Self::Host => &[Hook::FromEndpoint],
            Self::Network => &[Hook::FromNetwork, Hook::ToNetwork],
            Self::WireGuard => &[Hook::FromWireGuard],
        }
    }
}

macro_rules! hooks {
    ($($(#[$doc:meta])* $variant:ident = $name:literal, $attach:ident;)*) => {
        /// One program at one place; named for the program.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Hook { $($(#[$doc])* $variant,)* }

        impl Hook {
            /// All of them.
            pub const ALL: &'static [Hook] = &[$(Hook::$variant,)*];

            /// The program's name in the object, and the pin's.
            pub fn name(self) -> &'static str {
                match self { $(Hook::$variant => $name,)* }
            }

            pub(crate) fn attach_type(self) -> bpf_attach_type {
                match self { $(Hook::$variant => bpf_attach_type::$attach,)* }
            }
        }
    };
}

hooks! {
    /// Packets that an endpoint sends.
    FromEndpoint = "from_endpoint", BPF_TCX_INGRESS;
    /// Packets that the stack sends to an endpoint.
    ToEndpoint = "to_endpoint", BPF_TCX_EGRESS;
    /// Packets that arrive from the underlay.
    FromNetwork = "from_network", BPF_TCX_INGRESS;
    /// Packets that leave for the underlay.
    ToNetwork = "to_network", BPF_TCX_EGRESS;
    /// Packets that WireGuard decrypted.
    FromWireGuard = "from_wireguard", BPF_TCX_INGRESS;
    /// `connect()` over IPv4.
    Connect4 = "connect4", BPF_CGROUP_INET4_CONNECT;
    /// `connect()` over IPv6.
    Connect6 = "connect6", BPF_CGROUP_INET6_CONNECT;
    /// `sendmsg()` with an IPv4 address.
    Sendmsg4 = "sendmsg4", BPF_CGROUP_UDP4_SENDMSG;
    /// `sendmsg()` with an IPv6 address.
    Sendmsg6 = "sendmsg6", BPF_CGROUP_UDP6_SENDMSG;
    /// `recvmsg()` with an IPv4 address.
    Recvmsg4 = "recvmsg4", BPF_CGROUP_UDP4_RECVMSG;
    /// `recvmsg()` with an IPv6 address.
    Recvmsg6 = "recvmsg6", BPF_CGROUP_UDP6_RECVMSG;
    /// `getpeername()` over IPv4.
    Getpeername4 = "getpeername4", BPF_CGROUP_INET4_GETPEERNAME;
    /// `getpeername()` over IPv6.
    Getpeername6 = "getpeername6", BPF_CGROUP_INET6_GETPEERNAME;
}

impl Hook {
    /// The hook of this name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|h| h.name() == name)
    }

    /// Those that hang on the node's cgroup.
    pub fn cgroup() -> impl Iterator<Item = Self> {
        Self::ALL.iter().copied().filter(|h| h.is_cgroup())
    }

    /// Says whether it hangs on a cgroup rather than on a device.
    pub fn is_cgroup(self) -> bool {
        !matches!(
            self,
            Self::FromEndpoint | Self::ToEndpoint | Self::FromNetwork | Self::ToNetwork | Self::FromWireGuard
        )
    }
}

impl fmt::Display for Hook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Where a program hangs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Place {
    /// A device.
    Device(IfIndex),
    /// The node's cgroup.
    Cgroup,
}

/// The file name of a link's pin: `12-from_endpoint`, `cgroup-connect4`. Names in a BPF file system hold no dot.
pub(crate) fn pin_name(place: Place, hook: Hook) -> String {
    match place {
        Place::Device(index) => format!("{index}-{hook}"),
        Place::Cgroup => format!("cgroup-{hook}"),
    }
}

/// The reverse of [`pin_name`]; `None` for names that it does not make.
pub(crate) fn parse_pin_name(name: &str) -> Option<(Place, Hook)> {
    let (place, hook) = name.split_once('-')?;
    let hook = Hook::from_name(hook)?;
    let place = match place {
        "cgroup" => Place::Cgroup,
        number => Place::Device(IfIndex::new(number.parse().ok()?).ok()?),
    };
    (hook.is_cgroup() == (place == Place::Cgroup)).then_some((place, hook))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pin_names_are_read_back() {
        let device = Place::Device(IfIndex::new(12).unwrap());
        assert_eq!(pin_name(device, Hook::FromEndpoint), "12-from_endpoint");
        for &hook in Hook::ALL {
            let place = if hook.is_cgroup() { Place::Cgroup } else { device };
            assert_eq!(parse_pin_name(&pin_name(place, hook)), Some((place, hook)));
        }
    }

    #[test]
    fn foreign_names_are_not_ours() {
        for name in ["", "x", "0-from_endpoint", "12-connect4", "cgroup-from_endpoint", "12-other", "-from_endpoint"] {
            assert_eq!(parse_pin_name(name), None, "{name}");
        }
    }

    #[test]
    fn roles_cover_every_device_hook_once() {
        let mut of_roles: Vec<Hook> =
            [Role::Endpoint, Role::Network, Role::WireGuard].iter().flat_map(|r| r.hooks()).copied().collect();
        of_roles.extend(Hook::cgroup());
        assert_eq!(of_roles, Hook::ALL);
    }
}
