//! The eBPF programs: one entry point per hook. They turn a context into a call of `fabric-ebpf-logic`, and what that decides into
//! helpers and return codes; they decide nothing. Programs and maps are listed on `fabric-ebpf-abi`'s first page.
//!
//! [`tc`] has the hooks on devices, [`cgroup`] those on sockets.
#![no_std]
#![no_main]

mod cgroup;
mod kernel;
mod maps;
mod skb;
mod tc;
mod tell;

/// Nothing panics: the build checks that no such symbol is in the object.
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 4] = *b"GPL\0";
