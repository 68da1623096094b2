//! Loads, pins, adopts and fills the node's eBPF data path.
//!
//! It knows no clusters, objects or streams: rows in ([`rows`], [`maps`]), programs on devices ([`Datapath`]), events
//! and counters out. State outlives the process: maps and links are pinned, and the next process adopts them.
//!
//! Begin reading at [`Datapath::open`]. Calls are short system calls and block; only [`Events`] is async.

mod bpffs;
mod datapath;
pub mod events;
mod hook;
mod links;
mod load;
pub mod maps;
mod params;
pub mod probe;
pub mod rows;
#[expect(unsafe_code, reason = "bpf(2), and plain values as bytes")]
mod sys;

pub use crate::{
    bpffs::BpffsError,
    datapath::{Datapath, OpenError, attached, cleanup, open_read_only},
    events::{Events, EventsError},
    hook::{Hook, IfIndex, IfIndexError, Place, Role},
    links::{AttachError, Attachment},
    load::{KeptSize, LoadError},
    maps::{Changed, MapError, Maps, Rows},
    params::{Params, Sizes},
};
