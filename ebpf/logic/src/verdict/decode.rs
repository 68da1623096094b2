//! A decision as the kernel's programs left it in their working memory: for tests.

use std::vec::Vec;

use fabric_ebpf_abi::{Addr, Addr4, Be16, EndpointEntry, FlowImage};

use super::{Trail, Workspace};
use crate::nat::Rewrite;

/// How many words the working memory has.
pub const WORDS: usize = size_of::<Workspace>() / size_of::<u64>();

/// Takes plain numbers off the front, in the order in which they lie in memory.
struct Numbers(std::vec::IntoIter<u8>);

impl Numbers {
    fn bytes<const N: usize>(&mut self) -> [u8; N] {
        core::array::from_fn(|_| self.0.next().unwrap_or(0))
    }

    fn u8(&mut self) -> u8 {
        u8::from_ne_bytes(self.bytes())
    }

    fn u16(&mut self) -> u16 {
        u16::from_ne_bytes(self.bytes())
    }

    fn u32(&mut self) -> u32 {
        u32::from_ne_bytes(self.bytes())
    }

    fn u64(&mut self) -> u64 {
        u64::from_ne_bytes(self.bytes())
    }

    fn addr(&mut self) -> Addr {
        Addr([self.u32(), self.u32(), self.u32(), self.u32()])
    }

    fn be16(&mut self) -> Be16 {
        Be16::from_raw(self.u16())
    }
}

impl Workspace {
    /// Reads the working memory. The fields stand here in their order in memory.
    #[must_use]
    pub fn from_words(words: &[u64; WORDS]) -> Self {
        let mut n = Numbers(words.iter().flat_map(|word| word.to_ne_bytes()).collect::<Vec<u8>>().into_iter());
        Self {
            trail: Trail {
                l3: n.u32(),
                src_identity: n.u32(),
                dst_identity: n.u32(),
                rule: n.u32(),
                notices: n.u32(),
                direction: n.u32(),
            },
            action: n.u32(),
            reason: n.u32(),
            endpoint: endpoint(&mut n),
            node: Addr4(n.u32()),
            vni: n.u32(),
            encrypt: n.u32(),
            strip: n.u32(),
            inner6: n.u32(),
            rewrites: n.u32(),
            rewrite: rewrite(&mut n),
            by: n.u32(),
            flow: flow(&mut n),
        }
    }
}

fn endpoint(n: &mut Numbers) -> EndpointEntry {
    EndpointEntry {
        ifindex: n.u32(),
        identity: n.u32(),
        mac: n.bytes(),
        host_mac: n.bytes(),
        flags: n.u16(),
        id: n.u16(),
    }
}

fn rewrite(n: &mut Numbers) -> Rewrite {
    Rewrite {
        old: n.addr(),
        new: n.addr(),
        l4: n.u32(),
        old_port: n.be16(),
        new_port: n.be16(),
        proto: n.u8(),
        family: n.u8(),
        source: n.u8(),
        pad: n.u8(),
    }
}

fn flow(n: &mut Numbers) -> FlowImage {
    FlowImage {
        packets: n.u64(),
        bytes: n.u64(),
        lifetime: n.u32(),
        epoch: n.u32(),
        peer_identity: n.u32(),
        way: n.u32(),
        node: n.addr(),
        flags: n.u32(),
        reported: n.u32(),
    }
}

const _: () = assert!(size_of::<Workspace>() == WORDS * 8 && core::mem::offset_of!(Workspace, flow) == 128);
