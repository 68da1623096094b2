//! A packet in the kernel: reading it, and the changes that decisions ask for.

use core::mem::MaybeUninit;

use aya_ebpf::{
    bindings::{
        __sk_buff, BPF_F_ADJ_ROOM_DECAP_L3_IPV4, BPF_F_ADJ_ROOM_DECAP_L3_IPV6, BPF_F_ADJ_ROOM_ENCAP_L2_ETH,
        BPF_F_ADJ_ROOM_ENCAP_L3_IPV4, BPF_F_ADJ_ROOM_ENCAP_L4_UDP, BPF_F_ADJ_ROOM_FIXED_GSO, BPF_F_MARK_MANGLED_0,
        BPF_F_PSEUDO_HDR, bpf_adj_room_mode::BPF_ADJ_ROOM_MAC,
    },
    helpers::generated::{
        bpf_csum_diff, bpf_get_hash_recalc, bpf_l3_csum_replace, bpf_l4_csum_replace, bpf_skb_adjust_room,
        bpf_skb_change_head, bpf_skb_change_type, bpf_skb_load_bytes, bpf_skb_pull_data, bpf_skb_store_bytes,
    },
};
use fabric_ebpf_abi::{Addr, Be16, DropReason, EtherType, Ethernet, Family, Ipv4, Ipv6, Wire, mark};
use fabric_ebpf_logic::{
    Packet, Rewrite,
    encap::{OVERHEAD, Outer},
    packet::MAX_OFFSET,
};

/// Headers lie within so many bytes; fewer in one piece are pulled together first.
const HEADERS: u32 = 256;
const ETHERNET: usize = 14;
/// `PACKET_HOST`: for this machine, whatever the frame's address was.
const FOR_US: u32 = 0;
/// Where the length of the inner Ethernet header stands in the flags of `bpf_skb_adjust_room`.
const ENCAP_L2_SHIFT: u64 = 56;

/// An encapsulated packet's start.
#[repr(C, packed)]
struct Frame {
    ethernet: Ethernet,
    outer: Outer,
    inner: Ethernet,
}

/// The kernel's packet.
#[derive(Clone, Copy)]
pub struct Skb(pub *mut __sk_buff);

macro_rules! field {
    ($($(#[$doc:meta])* $name:ident)*) => { $(
        $(#[$doc])*
        #[inline(always)]
        pub fn $name(self) -> u32 {
            // SAFETY: the context is valid for the whole program; volatile keeps each access one load at a constant offset.
            unsafe { (&raw const (*self.0).$name).read_volatile() }
        }
    )* };
}

impl Skb {
    field! {
        /// Length.
        len
        /// The device whose program runs.
        ifindex
        /// Mark.
        mark
        /// Whom the frame was for.
        pkt_type
        /// First byte.
        data
        /// After the last byte that is in one piece.
        data_end
    }

    /// Makes sure that the headers are in one piece. What is not there afterwards is not there at all.
    #[inline(always)]
    pub fn pull(self) {
        let (len, linear) = (self.len(), self.data_end().wrapping_sub(self.data()));
        if linear < HEADERS && linear < len {
            let wanted = if len < HEADERS { len } else { HEADERS };
            // SAFETY: the context is valid.
            let _ = unsafe { bpf_skb_pull_data(self.0, wanted) };
        }
    }

    /// Puts one of [`mark`]'s values into our bits of the mark.
    #[inline(always)]
    pub fn set_mark(self, value: u32) {
        let marked = self.mark() & !mark::MASK | value;
        // SAFETY: the context is valid and the mark may be written.
        unsafe { (&raw mut (*self.0).mark).write_volatile(marked) };
    }

    /// A place in the packet to write a `T` to.
    #[inline(always)]
    fn at<T>(self, offset: usize) -> Option<*mut T> {
        let place = self.data() as usize + offset;
        if place + size_of::<T>() > self.data_end() as usize { None } else { Some(place as *mut T) }
    }

    /// The frame's new addresses and what it carries.
    #[inline(always)]
    pub fn write_ethernet(self, header: Ethernet) -> Result<(), DropReason> {
        let place = self.at::<Ethernet>(0).ok_or(DropReason::WriteError)?;
        // SAFETY: `at` has checked that these bytes are inside the packet.
        unsafe { *place = header };
        Ok(())
    }

    /// One hop further.
    #[inline(always)]
    pub fn decrement_ttl(self, family: Family) -> Result<(), DropReason> {
        match family {
            Family::V4 => {
                let header = self.at::<Ipv4>(ETHERNET).ok_or(DropReason::WriteError)?;
                // SAFETY: `at` has checked it. The sum of a header whose word of TTL and protocol lost 0x0100 grows by as much,
                // with end-around carry (RFC 1141).
                unsafe {
                    (*header).ttl = (*header).ttl.wrapping_sub(1);
                    let sum = u32::from((*header).checksum.get()) + 0x0100;
                    (*header).checksum = Be16::new((sum + (sum >> 16)) as u16);
                }
            }
            Family::V6 => {
                let header = self.at::<Ipv6>(ETHERNET).ok_or(DropReason::WriteError)?;
                // SAFETY: `at` has checked it.
                unsafe { (*header).hop_limit = (*header).hop_limit.wrapping_sub(1) };
            }
        }
        Ok(())
    }

    /// The flow's hash.
    #[inline(always)]
    pub fn hash(self) -> u32 {
        // SAFETY: the context is valid.
        unsafe { bpf_get_hash_recalc(self.0) }
    }

    /// Takes the frame for this machine, whatever address it had.
    #[inline(always)]
    pub fn make_ours(self) {
        if self.pkt_type() != FOR_US {
            // SAFETY: the context is valid.
            let _ = unsafe { bpf_skb_change_type(self.0, FOR_US) };
        }
    }

    /// Puts tunnel headers behind the Ethernet header, and a copy of that in front of the inner packet.
    ///
    /// Of the flags, only the inner Ethernet header counts as inner header: with the tunnel header counted too, segmentation
    /// does not find the inner packet and every super-packet is lost.
    #[inline(always)]
    pub fn encapsulate(self, outer: &Outer) -> Result<(), DropReason> {
        let flags = u64::from(
            BPF_F_ADJ_ROOM_ENCAP_L3_IPV4
                | BPF_F_ADJ_ROOM_ENCAP_L4_UDP
                | BPF_F_ADJ_ROOM_ENCAP_L2_ETH
                | BPF_F_ADJ_ROOM_FIXED_GSO,
        ) | (ETHERNET as u64) << ENCAP_L2_SHIFT;
        let place = self.at::<Ethernet>(0).ok_or(DropReason::WriteError)?;
        // SAFETY: `at` has checked it.
        let inner = unsafe { *place };
        // SAFETY: the context is valid.
        if unsafe { bpf_skb_adjust_room(self.0, OVERHEAD as i32, BPF_ADJ_ROOM_MAC, flags) } != 0 {
            return Err(DropReason::WriteError);
        }
        let place = self.at::<Frame>(0).ok_or(DropReason::WriteError)?;
        // SAFETY: `at` has checked it, after the last helper that changed the packet; nothing of the place is read.
        unsafe {
            (&raw mut (*place).ethernet).write_unaligned(Ethernet { ethertype: EtherType::IPV4, ..inner });
            (&raw mut (*place).outer).cast::<Outer>().write(*outer);
            (&raw mut (*place).inner).write_unaligned(inner);
        }
        Ok(())
    }

    /// Takes `bytes` of outer headers off, so that a packet of `family` is left.
    #[inline(always)]
    pub fn strip(self, bytes: u32, family: Family) -> Result<(), DropReason> {
        let decap = match family {
            Family::V4 => BPF_F_ADJ_ROOM_DECAP_L3_IPV4,
            Family::V6 => BPF_F_ADJ_ROOM_DECAP_L3_IPV6,
        };
        let flags = u64::from(BPF_F_ADJ_ROOM_FIXED_GSO | decap);
        // SAFETY: the context is valid.
        if unsafe { bpf_skb_adjust_room(self.0, -(bytes as i32), BPF_ADJ_ROOM_MAC, flags) } != 0 {
            return Err(DropReason::WriteError);
        }
        Ok(())
    }

    /// Room for an Ethernet header, for a packet that came from a device without.
    #[inline(always)]
    pub fn grow_ethernet(self) -> Result<(), DropReason> {
        // SAFETY: the context is valid.
        if unsafe { bpf_skb_change_head(self.0, ETHERNET as u32, 0) } != 0 {
            return Err(DropReason::WriteError);
        }
        Ok(())
    }

    /// Changes an address and a port, and mends the checksums.
    #[inline(always)]
    pub fn rewrite(self, r: &Rewrite) -> Result<(), DropReason> {
        if r.l4 != 0 {
            self.rewrite_transport(r)?;
        }
        if r.is_v6() {
            return self.store(r.addr_offset(), &r.new);
        }
        let (old, new) = (r.old.v4().0, r.new.v4().0);
        // SAFETY: the context is valid.
        if unsafe { bpf_l3_csum_replace(self.0, r.l3_checksum(), u64::from(old), u64::from(new), 4) } != 0 {
            return Err(DropReason::L3Checksum);
        }
        self.store(r.addr_offset(), &r.new.v4())
    }

    #[inline(always)]
    fn rewrite_transport(self, r: &Rewrite) -> Result<(), DropReason> {
        let mangled = if r.is_optional() { u64::from(BPF_F_MARK_MANGLED_0) } else { 0 };
        let checksum = r.l4_checksum();
        if r.covers_addresses() {
            let pseudo = u64::from(BPF_F_PSEUDO_HDR) | mangled;
            let failed = if r.is_v6() {
                // SAFETY: the context is valid, both addresses are 16 bytes.
                unsafe {
                    let diff = bpf_csum_diff(address(&r.old), 16, address(&r.new), 16, 0);
                    bpf_l4_csum_replace(self.0, checksum, 0, diff as u64, pseudo)
                }
            } else {
                let (old, new) = (r.old.v4().0, r.new.v4().0);
                // SAFETY: the context is valid.
                unsafe { bpf_l4_csum_replace(self.0, checksum, u64::from(old), u64::from(new), pseudo | 4) }
            };
            if failed != 0 {
                return Err(DropReason::L4Checksum);
            }
        }
        let (old, new) = (u64::from(r.old_port.raw()), u64::from(r.new_port.raw()));
        // SAFETY: the context is valid.
        if unsafe { bpf_l4_csum_replace(self.0, checksum, old, new, mangled | 2) } != 0 {
            return Err(DropReason::L4Checksum);
        }
        self.store(r.port_offset(), &r.new_port)
    }

    #[inline(always)]
    fn store<T>(self, offset: u32, value: &T) -> Result<(), DropReason> {
        // SAFETY: the context is valid, and the value is `size_of::<T>()` bytes long.
        let failed =
            unsafe { bpf_skb_store_bytes(self.0, offset, (&raw const *value).cast(), size_of::<T>() as u32, 0) };
        if failed == 0 { Ok(()) } else { Err(DropReason::WriteError) }
    }
}

/// An address as the checksum helper wants it.
#[inline(always)]
fn address(addr: &Addr) -> *mut u32 {
    (&raw const *addr).cast_mut().cast()
}

impl Packet for Skb {
    #[inline(always)]
    fn len(&self) -> u32 {
        Skb::len(*self)
    }

    #[inline(always)]
    fn read<T: Wire>(&self, offset: u32) -> Option<T> {
        let place = self.data() as usize + offset as usize;
        if place + size_of::<T>() > self.data_end() as usize {
            return None;
        }
        // SAFETY: the bytes are inside the packet, any bytes make a valid `T`, and the machines that BPF runs on load
        // unaligned words (an unaligned read would be split into bytes).
        Some(unsafe { *(place as *const T) })
    }

    #[inline(always)]
    fn load<T: Wire>(&self, offset: u32) -> Option<T> {
        if offset > MAX_OFFSET {
            return None;
        }
        let mut value = MaybeUninit::<T>::uninit();
        // SAFETY: the context is valid; the helper fills all bytes of the value, or fails.
        let failed =
            unsafe { bpf_skb_load_bytes(self.0.cast(), offset, value.as_mut_ptr().cast(), size_of::<T>() as u32) };
        // SAFETY: it was filled, and any bytes make a valid `T`.
        if failed == 0 { Some(unsafe { value.assume_init() }) } else { None }
    }
}
