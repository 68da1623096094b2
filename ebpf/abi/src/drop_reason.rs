//! Why packets are dropped: Cilium's numbers and names (`api/v1/flow/flow.proto`), as far as our programs use them.

macro_rules! reasons {
    ($($(#[$doc:meta])* $variant:ident = $number:literal, $name:literal;)*) => {
        /// Why a packet was dropped.
        #[repr(u8)]
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum DropReason { $($(#[$doc])* $variant = $number,)* }

        impl DropReason {
            /// All that our programs use.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// Hubble's name.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }

            /// The reason with this number.
            #[inline(always)]
            pub const fn from_number(number: u32) -> Option<Self> {
                match number { $($number => Some(Self::$variant),)* _ => None }
            }
        }
    };
}

reasons! {
    /// The source is not the sender's address.
    InvalidSourceIp = 132, "INVALID_SOURCE_IP";
    /// No rule allows it, and a policy selects the endpoint.
    PolicyDenied = 133, "POLICY_DENIED";
    /// Its headers make no sense.
    InvalidPacket = 134, "INVALID_PACKET_DROPPED";
    /// A header is cut off.
    Truncated = 135, "CT_TRUNCATED_OR_INVALID_HEADER";
    /// Neither IPv4 nor IPv6 inside a tunnel.
    UnsupportedL3 = 139, "UNSUPPORTED_L3_PROTOCOL";
    /// The packet could not be changed.
    WriteError = 141, "ERROR_WRITING_TO_PACKET";
    /// Not TCP, UDP, SCTP, ICMP or ICMPv6.
    UnknownL4 = 142, "UNKNOWN_L4_PROTOCOL";
    /// The endpoint that a flow went to is gone.
    UnknownTarget = 150, "UNKNOWN_L3_TARGET_ADDRESS";
    /// A prefix of a cluster that was disconnected. Not 195: the prefix is refused whether encrypted or not.
    Unroutable = 151, "STALE_OR_UNROUTABLE_IP";
    /// The IP header's checksum could not be mended.
    L3Checksum = 153, "ERROR_WHILE_CORRECTING_L3_CHECKSUM";
    /// The transport's checksum could not be mended.
    L4Checksum = 154, "ERROR_WHILE_CORRECTING_L4_CHECKSUM";
    /// The flow table took no new flow.
    FlowTableFull = 155, "CT_MAP_INSERTION_FAILED";
    /// More extension headers than we follow, or a broken one.
    InvalidExtensionHeader = 156, "INVALID_IPV6_EXTENSION_HEADER";
    /// A fragment that we do not handle.
    Fragment = 157, "IP_FRAGMENTATION_NOT_SUPPORTED";
    /// A service without backends.
    NoBackend = 158, "SERVICE_BACKEND_NOT_FOUND";
    /// A mesh address of which nobody said where it is.
    NoTunnelEnd = 160, "NO_TUNNEL_OR_ENCAPSULATION_ENDPOINT";
    /// No free port to masquerade with.
    NoNatMapping = 167, "NO_MAPPING_FOR_NAT_MASQUERADE";
    /// Not a protocol that can be masqueraded.
    NatProtocol = 168, "UNSUPPORTED_PROTOCOL_FOR_NAT_MASQUERADE";
    /// An endpoint that sends tunnel packets of its own.
    EncapProhibited = 170, "ENCAPSULATION_TRAFFIC_IS_PROHIBITED";
    /// An identity that its sender may not use.
    InvalidIdentity = 171, "INVALID_IDENTITY";
    /// A tunnel packet from no node of the mesh.
    UnknownSender = 172, "UNKNOWN_SENDER";
    /// A service's address that was not translated at the socket.
    IsClusterIp = 174, "IS_A_CLUSTERIP";
    /// A later fragment whose first was not seen.
    FirstFragmentMissing = 175, "FIRST_LOGICAL_DATAGRAM_FRAGMENT_NOT_FOUND";
    /// Router discovery and the like from an endpoint.
    ForbiddenIcmp6 = 176, "FORBIDDEN_ICMPV6_MESSAGE";
    /// A rule denies it.
    PolicyDeny = 181, "POLICY_DENY";
    /// It must be encrypted and is not, or cannot be.
    Unencrypted = 195, "UNENCRYPTED_TRAFFIC";
    /// It has travelled too far.
    TtlExceeded = 196, "TTL_EXCEEDED";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_back() {
        for &reason in DropReason::ALL {
            assert_eq!(DropReason::from_number(reason as u32), Some(reason), "{}", reason.name());
        }
        assert_eq!(DropReason::from_number(0), None);
    }
}
