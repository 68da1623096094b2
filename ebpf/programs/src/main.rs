//! The eBPF programs: one entry point per hook. They turn a context into calls of `fabric-ebpf-logic` and what that decides
//! into return codes; what must be known before reading on is in `fabric-ebpf-abi`'s first page.
#![no_std]
#![no_main]

mod maps;

use aya_ebpf::{
    macros::{cgroup_sock_addr, classifier},
    programs::{SockAddrContext, TcContext},
};

const NEXT: i32 = -1;
const ALLOW: i32 = 1;

#[classifier]
pub fn from_endpoint(_ctx: TcContext) -> i32 {
    let _ = maps::CONFIG.get(0);
    NEXT
}
#[classifier]
pub fn to_endpoint(_ctx: TcContext) -> i32 {
    NEXT
}
#[classifier]
pub fn from_network(_ctx: TcContext) -> i32 {
    NEXT
}
#[classifier]
pub fn to_network(_ctx: TcContext) -> i32 {
    NEXT
}
#[classifier]
pub fn from_wireguard(_ctx: TcContext) -> i32 {
    NEXT
}
#[cgroup_sock_addr(connect4)]
pub fn connect4(_ctx: SockAddrContext) -> i32 {
    ALLOW
}
#[cgroup_sock_addr(connect6)]
pub fn connect6(_ctx: SockAddrContext) -> i32 {
    ALLOW
}
#[cgroup_sock_addr(sendmsg4)]
pub fn sendmsg4(_ctx: SockAddrContext) -> i32 {
    ALLOW
}
#[cgroup_sock_addr(sendmsg6)]
pub fn sendmsg6(_ctx: SockAddrContext) -> i32 {
    ALLOW
}
#[cgroup_sock_addr(recvmsg4)]
pub fn recvmsg4(_ctx: SockAddrContext) -> i32 {
    ALLOW
}
#[cgroup_sock_addr(recvmsg6)]
pub fn recvmsg6(_ctx: SockAddrContext) -> i32 {
    ALLOW
}
#[cgroup_sock_addr(getpeername4)]
pub fn getpeername4(_ctx: SockAddrContext) -> i32 {
    ALLOW
}
#[cgroup_sock_addr(getpeername6)]
pub fn getpeername6(_ctx: SockAddrContext) -> i32 {
    ALLOW
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 4] = *b"GPL\0";
