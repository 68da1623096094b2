//! What happens to a packet. Pure: maps, packet bytes, time and chance come in through traits, a decision comes out.
//! Compiled twice: into the eBPF programs, and natively for tests and for `fabric why`.
//!
//! It calls no helper and changes no packet; *how* a decision is carried out is `ebpf/programs`. Begin reading in
//! [`pipeline`], where each file is one hook: the order of its steps and nothing else.
//!
//! # What keeps the verifier content
//!
//! Functions of the path are `#[inline(always)]`: one that is left as a call and returns a struct leaves a stack pointer in
//! the return register, and the program is refused. Functions outlined on purpose (`#[inline(never)]`: what is done once
//! per flow) return a number and fill a `&mut`. Headers are read as whole values, never as slices. No indexing, no division
//! by a runtime value, no formatting: each would bring a panic, which BPF does not have.
#![no_std]
#![forbid(unsafe_code)]
#![warn(clippy::indexing_slicing)]
#![expect(clippy::inline_always, reason = "see the crate's documentation")]

#[cfg(any(test, feature = "fakes"))]
extern crate std;

mod conntrack;
pub mod encap;
mod encrypt;
#[cfg(any(test, feature = "fakes"))]
pub mod fakes;
mod family;
mod ipcache;
mod maps;
mod nat;
pub mod packet;
pub mod pipeline;
mod policy;
pub mod service;
#[cfg(test)]
mod tests;
mod verdict;

pub use maps::{Clock, Maps, Step};
pub use nat::Rewrite;
pub use packet::Packet;
#[cfg(any(test, feature = "fakes"))]
pub use verdict::decode::WORDS;
pub use verdict::{Action, Decision, Trail, Workspace, notice};
