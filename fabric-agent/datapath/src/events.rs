//! Events that the programs send: drops, verdicts on new flows, traces; sampled.

use std::path::Path;

use aya::maps::{Map, MapData, RingBuf};
use tokio::io::unix::AsyncFd;

use crate::sys;

/// The map that events come through.
const MAP: &str = "EVENTS";

/// Why there are no events.
#[derive(Debug, thiserror::Error)]
pub enum EventsError {
    /// The buffer cannot be opened.
    #[error("open the event buffer")]
    Open(#[source] Box<aya::maps::MapError>),
    /// The runtime cannot watch it.
    #[error("watch the event buffer")]
    Watch(#[source] std::io::Error),
}

/// The reader's end of the event buffer. Only one may read.
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
        let map = MapData::from_pin(map_dir.join(MAP)).map_err(refused)?;
        let ring = RingBuf::try_from(Map::RingBuf(map)).map_err(refused)?;
        Ok(Self { ring: sys::watch(ring).map_err(EventsError::Watch)?, unknown: 0 })
    }
}
