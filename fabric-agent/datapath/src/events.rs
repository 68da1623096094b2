//! Events that the programs send: drops, verdicts on new flows, traces; sampled.

use std::{io, path::Path};

use aya::maps::{Map, MapData, RingBuf};
use fabric_ebpf_abi::{Event, map};
use tokio::io::unix::AsyncFd;

use crate::sys::{self, plain};

/// Why there are no events.
#[derive(Debug, thiserror::Error)]
pub enum EventsError {
    /// The buffer cannot be opened.
    #[error("open the event buffer")]
    Open(#[source] Box<aya::maps::MapError>),
    /// The runtime cannot watch it.
    #[error("watch the event buffer")]
    Watch(#[source] io::Error),
}

/// The reader's end of the event buffer. What one reader takes, no other sees.
pub struct Events {
    ring: AsyncFd<RingBuf<MapData>>,
    unknown: u64,
}

impl std::fmt::Debug for Events {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Events").field("unknown", &self.unknown).finish_non_exhaustive()
    }
}

impl Events {
    pub(crate) fn open(map_dir: &Path) -> Result<Self, EventsError> {
        let refused = |e| EventsError::Open(Box::new(e));
        let map = MapData::from_pin(map_dir.join(map::EVENTS)).map_err(refused)?;
        let ring = RingBuf::try_from(Map::RingBuf(map)).map_err(refused)?;
        Ok(Self { ring: sys::watch(ring).map_err(EventsError::Watch)?, unknown: 0 })
    }

    /// The next event, as soon as there is one.
    ///
    /// # Errors
    /// When the runtime no longer watches the buffer.
    ///
    /// # Cancel safety
    /// Safe: an event is taken only when it is given.
    pub async fn next(&mut self) -> io::Result<Event> {
        loop {
            let mut ready = self.ring.readable_mut().await?;
            while let Some(record) = ready.get_inner_mut().next() {
                match plain::value(&record) {
                    Some(event) => return Ok(event),
                    None => self.unknown += 1,
                }
            }
            ready.clear_ready();
        }
    }

    /// Waits for events and adds what is there to `into`, at most `limit`; says how many.
    ///
    /// # Errors
    /// As [`Self::next`].
    ///
    /// # Cancel safety
    /// Safe: events are taken without waiting once there are any.
    pub async fn next_batch(&mut self, into: &mut Vec<Event>, limit: usize) -> io::Result<usize> {
        let before = into.len();
        into.push(self.next().await?);
        while into.len() - before < limit
            && let Some(event) = self.take()
        {
            into.push(event);
        }
        Ok(into.len() - before)
    }

    /// The next event if there is one already.
    fn take(&mut self) -> Option<Event> {
        loop {
            let record = self.ring.get_mut().next()?;
            match plain::value(&record) {
                Some(event) => return Some(event),
                None => self.unknown += 1,
            }
        }
    }

    /// Records that were none that this version knows.
    pub fn unknown(&self) -> u64 {
        self.unknown
    }
}
