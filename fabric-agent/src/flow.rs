//! Flows: the programs' events with names, kept in a ring, served as Hubble's observer.
//!
//! Events come out of the kernel's ring buffer ([`collect`]), get both sides' labels and names from the tables
//! ([`convert`]), and stay in a ring of the newest ([`ring`]) that any number of readers follow ([`observer`]). A reader
//! that falls behind is told how many it lost; nobody waits for it.

mod convert;
mod filter;
mod observer;
mod ring;
mod serve;

use std::sync::Arc;

use fabric_agent_datapath::Events;
use tokio_util::sync::CancellationToken;

pub(crate) use ring::FlowRing;
pub(crate) use serve::{Addresses, serve};

use crate::tables::Tables;
use convert::{Clock, Names};

/// Events taken at once, before the tables are asked again.
const BATCH: usize = 256;

/// Moves events into the ring until cancelled.
///
/// # Errors
/// When the kernel's buffer can no longer be watched.
pub(crate) async fn collect(
    mut events: Events,
    tables: Arc<Tables>,
    node: String,
    ring: Arc<FlowRing>,
    cancel: CancellationToken,
) -> anyhow::Result<()> {
    let mut batch = Vec::with_capacity(BATCH);
    loop {
        batch.clear();
        tokio::select! {
            taken = events.next_batch(&mut batch, BATCH) => { taken?; }
            () = cancel.cancelled() => return Ok(()),
        }
        let names = Names::new(&tables, &node);
        let clock = Clock::now();
        ring.add(batch.iter().map(|event| names.flow(event, &clock)));
    }
}
