//! Packet headers, bytes as on the wire.

use crate::address::{Addr4, Addr6, Be16, Be32};

macro_rules! headers {
    ($($(#[$doc:meta])* $name:ident($size:literal) { $($(#[$field_doc:meta])* $field:ident: $ty:ty,)* })*) => { $(
        $(#[$doc])*
        #[repr(C)]
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub struct $name { $($(#[$field_doc])* pub $field: $ty,)* }
        const _: () = assert!(size_of::<$name>() == $size);
    )* };
}

headers! {
    /// Ethernet II.
    Ethernet(14) {
        /// Destination.
        dst: [u16; 3],
        /// Source.
        src: [u16; 3],
        /// What follows: an [`EtherType`].
        ethertype: Be16,
    }
    /// RFC 791.
    Ipv4(20) {
        /// Version and header length in words.
        version_ihl: u8,
        /// Type of service.
        tos: u8,
        /// Length with this header.
        total_len: Be16,
        /// Identification of the datagram.
        id: Be16,
        /// Flags and fragment offset.
        fragment: Be16,
        /// Time to live.
        ttl: u8,
        /// What follows.
        proto: u8,
        /// Header checksum.
        checksum: Be16,
        /// Source.
        src: Addr4,
        /// Destination.
        dst: Addr4,
    }
    /// RFC 8200.
    Ipv6(40) {
        /// Version, traffic class, flow label.
        version_class_label: Be32,
        /// Length without this header.
        payload_len: Be16,
        /// What follows.
        next: u8,
        /// Hop limit.
        hop_limit: u8,
        /// Source.
        src: Addr6,
        /// Destination.
        dst: Addr6,
    }
    /// The start of an IPv6 extension header.
    ExtensionHeader(2) {
        /// What follows.
        next: u8,
        /// Length in words of 8 bytes, the first not counted.
        len: u8,
    }
    /// The IPv6 fragment header.
    FragmentHeader(8) {
        /// What follows.
        next: u8,
        /// 0.
        reserved: u8,
        /// Offset in words of 8 bytes, two bits of nothing, *more follow*.
        offset: Be16,
        /// Identification of the datagram, as on the wire.
        id: u32,
    }
    /// The ports with which TCP, UDP and SCTP begin.
    Ports(4) {
        /// Source.
        src: Be16,
        /// Destination.
        dst: Be16,
    }
    /// RFC 768.
    Udp(8) {
        /// Source port.
        src: Be16,
        /// Destination port.
        dst: Be16,
        /// Length with this header.
        len: Be16,
        /// Checksum; 0 for none.
        checksum: Be16,
    }
    /// RFC 9293, as far as its flags.
    TcpStart(14) {
        /// Source port.
        src: Be16,
        /// Destination port.
        dst: Be16,
        /// Number of the first byte.
        sequence: [Be16; 2],
        /// Number of the next byte expected.
        acknowledged: [Be16; 2],
        /// Length in words, in the upper half.
        offset: u8,
        /// [`tcp_flags`].
        flags: u8,
    }
    /// The first words of ICMP and ICMPv6.
    Icmp(8) {
        /// Type.
        kind: u8,
        /// Code.
        code: u8,
        /// Checksum.
        checksum: Be16,
        /// Of an echo: its identifier.
        id: Be16,
        /// Of an echo: its number.
        sequence: Be16,
    }
    /// RFC 7348.
    Vxlan(8) {
        /// Only the bit that says that there is a VNI.
        flags: Be32,
        /// VNI in the upper 24 bits.
        vni: Be32,
    }
    /// RFC 8926.
    Geneve(8) {
        /// Version and length of options in words.
        version_len: u8,
        /// Control and critical bits.
        flags: u8,
        /// What follows: an [`EtherType`].
        protocol: Be16,
        /// VNI in the upper 24 bits.
        vni: Be32,
    }
}

/// What a frame carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EtherType;

impl EtherType {
    /// IPv4.
    pub const IPV4: Be16 = Be16::new(0x0800);
    /// IPv6.
    pub const IPV6: Be16 = Be16::new(0x86dd);
    /// Ethernet inside Geneve.
    pub const ETHERNET: Be16 = Be16::new(0x6558);
}

/// IP protocol numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Protocol;

impl Protocol {
    /// Hop-by-hop options.
    pub const HOP_BY_HOP: u8 = 0;
    /// ICMP.
    pub const ICMP: u8 = 1;
    /// TCP.
    pub const TCP: u8 = 6;
    /// UDP.
    pub const UDP: u8 = 17;
    /// Routing header.
    pub const ROUTING: u8 = 43;
    /// Fragment header.
    pub const FRAGMENT: u8 = 44;
    /// ICMPv6.
    pub const ICMPV6: u8 = 58;
    /// Destination options.
    pub const DESTINATION: u8 = 60;
    /// SCTP.
    pub const SCTP: u8 = 132;
}

/// TCP's flags.
pub mod tcp_flags {
    /// Last of its sender.
    pub const FIN: u8 = 1;
    /// First of its sender.
    pub const SYN: u8 = 2;
    /// Ended at once.
    pub const RST: u8 = 4;
    /// Acknowledges.
    pub const ACK: u8 = 16;
}

impl Ipv4 {
    /// Length of the header in bytes; 0 when this is not IPv4 or the length makes no sense.
    #[inline(always)]
    pub const fn header_len(&self) -> u32 {
        let len = (self.version_ihl & 15) as u32 * 4;
        if self.version_ihl >> 4 == 4 && len >= 20 { len } else { 0 }
    }
}

impl Ipv6 {
    /// Says whether the version is 6.
    #[inline(always)]
    pub const fn is_valid(&self) -> bool {
        self.version_class_label.get() >> 28 == 6
    }
}
