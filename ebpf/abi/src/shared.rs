//! The unsafe corner: numbers that other CPUs write at the same time, and the marker for plain packet bytes.

use crate::{
    address::{Addr4, Addr6, Be16, Be32},
    packet,
};

/// A number in a map value that other CPUs may write at the same time. Natively an atomic. The BPF target has none
/// narrower than 64 bits; there, a volatile access is one plain load or store.
macro_rules! shared {
    ($(#[$doc:meta])* $name:ident, $ty:ty, $atomic:ident) => {
        $(#[$doc])*
        #[repr(transparent)]
        pub struct $name(
            #[cfg(target_arch = "bpf")] core::cell::UnsafeCell<$ty>,
            #[cfg(not(target_arch = "bpf"))] core::sync::atomic::$atomic,
        );

        // SAFETY: the verifier lets only one program at a time hold a reference on one CPU, and every access is one aligned
        // load or store of at most 64 bits, which BPF's targets do not tear.
        #[cfg(target_arch = "bpf")]
        unsafe impl Sync for $name {}

        impl core::fmt::Debug for $name {
            fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
                self.get().fmt(f)
            }
        }

        #[cfg(target_arch = "bpf")]
        impl $name {
            /// Holds `value`.
            #[inline(always)]
            pub const fn new(value: $ty) -> Self {
                Self(core::cell::UnsafeCell::new(value))
            }

            /// What it holds now.
            #[inline(always)]
            pub fn get(&self) -> $ty {
                // SAFETY: the pointer comes from a reference to this cell, so it is valid and aligned.
                unsafe { self.0.get().read_volatile() }
            }

            /// Makes it hold `value`.
            #[inline(always)]
            pub fn set(&self, value: $ty) {
                // SAFETY: the pointer comes from a reference to this cell, so it is valid and aligned.
                unsafe { self.0.get().write_volatile(value) }
            }
        }

        #[cfg(not(target_arch = "bpf"))]
        impl $name {
            /// Holds `value`.
            pub const fn new(value: $ty) -> Self {
                Self(core::sync::atomic::$atomic::new(value))
            }

            /// What it holds now.
            pub fn get(&self) -> $ty {
                self.0.load(core::sync::atomic::Ordering::Relaxed)
            }

            /// Makes it hold `value`.
            pub fn set(&self, value: $ty) {
                self.0.store(value, core::sync::atomic::Ordering::Relaxed);
            }
        }
    };
}

shared!(
    /// 32 bits that other CPUs may write.
    Shared32, u32, AtomicU32
);
shared!(
    /// 64 bits that other CPUs may write.
    Shared64, u64, AtomicU64
);

/// A plain value that may be read from packet bytes. At least two bytes: of the check for a single one, the verifier learns
/// nothing when it stands at the packet's start.
///
/// # Safety
/// `repr(C)` or transparent, without padding, every bit pattern valid.
pub unsafe trait Wire: Copy + 'static {
    /// The value at the start of `bytes`; `None` when they are too few.
    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        if bytes.len() < size_of::<Self>() {
            return None;
        }
        // SAFETY: there are enough bytes, and by this trait's contract any bytes make a valid value.
        Some(unsafe { bytes.as_ptr().cast::<Self>().read_unaligned() })
    }
}

macro_rules! wire {
    ($($ty:ty),* $(,)?) => { $(
        // SAFETY: numbers only, and the size assertions in `packet` leave no room for padding.
        unsafe impl Wire for $ty {}
    )* };
}

wire!(
    Be16,
    Be32,
    Addr4,
    Addr6,
    packet::Ethernet,
    packet::Ipv4,
    packet::Ipv6,
    packet::ExtensionHeader,
    packet::FragmentHeader,
    packet::Ports,
    packet::Udp,
    packet::TcpStart,
    packet::Icmp,
    packet::Vxlan,
    packet::Geneve,
);
