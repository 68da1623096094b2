//! Bring the kernel to what the tables say: update, delete, prune; each idempotent, retried with back-off, repaired by a
//! full pass now and then.
//!
//! Reconcilers see tables, never controllers nor each other. [`datapath`] is one reconciler for all kernel maps, because
//! their order matters: what must be encrypted before who may be reached, policy before the addresses it is about.

pub(crate) mod bpf_map;
pub(crate) mod datapath;
pub(crate) mod routes;
pub(crate) mod wireguard;
