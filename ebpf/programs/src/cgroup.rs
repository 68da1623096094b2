//! Hooks on the node's cgroup: services are translated where a socket names its peer, so that no packet needs to be.

use aya_ebpf::{
    EbpfContext as _,
    bindings::bpf_sock_addr,
    helpers::generated::{bpf_get_socket_cookie, bpf_set_retval},
    macros::cgroup_sock_addr,
    programs::SockAddrContext,
};
use fabric_ebpf_abi::{Addr, Be16, Family};
use fabric_ebpf_logic::service::{self, Socket, Target};

use crate::kernel::Kernel;

const ALLOW: i32 = 1;
const REFUSE: i32 = 0;
/// `-EHOSTUNREACH`: a service without backends.
const UNREACHABLE: i32 = -113;

/// The socket's address arguments.
struct Args {
    ctx: SockAddrContext,
}

impl Args {
    #[inline(always)]
    fn raw(&self) -> *mut bpf_sock_addr {
        self.ctx.sock_addr
    }

    #[inline(always)]
    fn socket(&self) -> Socket {
        // SAFETY: the context is valid for the whole program; the field may be read, and the helper takes it.
        unsafe {
            Socket {
                cookie: bpf_get_socket_cookie(self.ctx.as_ptr()),
                proto: (&raw const (*self.raw()).protocol).read_volatile() as u8,
            }
        }
    }

    #[inline(always)]
    fn port(&self) -> Be16 {
        // SAFETY: the context is valid; the lower half holds the port in wire order.
        Be16::from_raw(unsafe { (&raw const (*self.raw()).user_port).read_volatile() } as u16)
    }

    #[inline(always)]
    fn set_port(&self, port: Be16) {
        // SAFETY: the context is valid and the field may be written.
        unsafe { (&raw mut (*self.raw()).user_port).write_volatile(u32::from(port.raw())) };
    }

    #[inline(always)]
    fn target4(&self) -> Target {
        // SAFETY: the context is valid; the field may be read in hooks of IPv4.
        let ip = unsafe { (&raw const (*self.raw()).user_ip4).read_volatile() };
        Target { addr: Addr([ip, 0, 0, 0]), port: self.port(), family: Family::V4 }
    }

    #[inline(always)]
    fn set4(&self, target: &Target) {
        // SAFETY: the context is valid and the field may be written in hooks of IPv4.
        unsafe { (&raw mut (*self.raw()).user_ip4).write_volatile(target.addr.v4().0) };
        self.set_port(target.port);
    }

    #[inline(always)]
    fn target6(&self) -> Target {
        // SAFETY: the context is valid; the words may be read in hooks of IPv6.
        let words = unsafe {
            [
                (&raw const (*self.raw()).user_ip6[0]).read_volatile(),
                (&raw const (*self.raw()).user_ip6[1]).read_volatile(),
                (&raw const (*self.raw()).user_ip6[2]).read_volatile(),
                (&raw const (*self.raw()).user_ip6[3]).read_volatile(),
            ]
        };
        service::target6(words, self.port())
    }

    #[inline(always)]
    fn set6(&self, target: &Target) {
        let [a, b, c, d] = service::words6(target);
        // SAFETY: the context is valid and the words may be written in hooks of IPv6; one word at a time, as the verifier wants.
        unsafe {
            (&raw mut (*self.raw()).user_ip6[0]).write_volatile(a);
            (&raw mut (*self.raw()).user_ip6[1]).write_volatile(b);
            (&raw mut (*self.raw()).user_ip6[2]).write_volatile(c);
            (&raw mut (*self.raw()).user_ip6[3]).write_volatile(d);
        }
        self.set_port(target.port);
    }
}

#[inline(always)]
fn forward4(ctx: SockAddrContext) -> i32 {
    let args = Args { ctx };
    match service::forward(&Kernel, args.socket(), &args.target4()) {
        Ok(Some(backend)) => {
            args.set4(&backend);
            ALLOW
        }
        Ok(None) => ALLOW,
        Err(_) => refuse(),
    }
}

#[inline(always)]
fn forward6(ctx: SockAddrContext) -> i32 {
    let args = Args { ctx };
    match service::forward(&Kernel, args.socket(), &args.target6()) {
        Ok(Some(backend)) => {
            args.set6(&backend);
            ALLOW
        }
        Ok(None) => ALLOW,
        Err(_) => refuse(),
    }
}

#[inline(always)]
fn refuse() -> i32 {
    // SAFETY: a helper that takes a number; allowed in hooks that may refuse.
    let _ = unsafe { bpf_set_retval(UNREACHABLE) };
    REFUSE
}

#[inline(always)]
fn reverse4(ctx: SockAddrContext) -> i32 {
    let args = Args { ctx };
    if let Some(service) = service::reverse(&Kernel, args.socket(), &args.target4()) {
        args.set4(&service);
    }
    ALLOW
}

#[inline(always)]
fn reverse6(ctx: SockAddrContext) -> i32 {
    let args = Args { ctx };
    if let Some(service) = service::reverse(&Kernel, args.socket(), &args.target6()) {
        args.set6(&service);
    }
    ALLOW
}

/// `connect()` over IPv4.
#[cgroup_sock_addr(connect4)]
pub fn connect4(ctx: SockAddrContext) -> i32 {
    forward4(ctx)
}

/// `connect()` over IPv6, IPv4-mapped addresses included.
#[cgroup_sock_addr(connect6)]
pub fn connect6(ctx: SockAddrContext) -> i32 {
    forward6(ctx)
}

/// A datagram to a named IPv4 address.
#[cgroup_sock_addr(sendmsg4)]
pub fn sendmsg4(ctx: SockAddrContext) -> i32 {
    forward4(ctx)
}

/// A datagram to a named IPv6 address.
#[cgroup_sock_addr(sendmsg6)]
pub fn sendmsg6(ctx: SockAddrContext) -> i32 {
    forward6(ctx)
}

/// Who a datagram came from, over IPv4.
#[cgroup_sock_addr(recvmsg4)]
pub fn recvmsg4(ctx: SockAddrContext) -> i32 {
    reverse4(ctx)
}

/// Who a datagram came from, over IPv6.
#[cgroup_sock_addr(recvmsg6)]
pub fn recvmsg6(ctx: SockAddrContext) -> i32 {
    reverse6(ctx)
}

/// Who a socket is connected to, over IPv4.
#[cgroup_sock_addr(getpeername4)]
pub fn getpeername4(ctx: SockAddrContext) -> i32 {
    reverse4(ctx)
}

/// Who a socket is connected to, over IPv6.
#[cgroup_sock_addr(getpeername6)]
pub fn getpeername6(ctx: SockAddrContext) -> i32 {
    reverse6(ctx)
}
