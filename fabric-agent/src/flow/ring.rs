//! The newest flows, numbered; readers hold numbers, not places.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use clustermesh_api_proto::flow::Flow;
use tokio::sync::watch;

/// How many are kept: Hubble's default, one less than a power of two.
pub(crate) const CAPACITY: usize = 4095;

/// What a reader gets for a number.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Read {
    /// The flow.
    Flow(Arc<Flow>),
    /// Fell out before it was read; so many are gone, go on with this number.
    Lost { count: u64, next: u64 },
    /// Not there yet.
    Later,
}

#[derive(Debug)]
struct Inner {
    flows: VecDeque<Arc<Flow>>,
    /// Number that the next flow gets; the first flow ever is 0.
    next: u64,
}

/// The ring.
#[derive(Debug)]
pub(crate) struct FlowRing {
    inner: Mutex<Inner>,
    wake: watch::Sender<u64>,
    since: Instant,
}

impl FlowRing {
    pub(crate) fn new(now: Instant) -> Self {
        let inner = Inner { flows: VecDeque::with_capacity(CAPACITY), next: 0 };
        Self { inner: Mutex::new(inner), wake: watch::Sender::new(0), since: now }
    }

    /// Adds flows, the oldest ones fall out.
    pub(crate) fn add(&self, flows: impl Iterator<Item = Flow>) {
        let mut inner = self.lock();
        for mut flow in flows {
            if inner.flows.len() == CAPACITY {
                inner.flows.pop_front();
            }
            flow.uuid = format!("{:032x}", inner.next);
            inner.flows.push_back(Arc::new(flow));
            inner.next += 1;
        }
        let next = inner.next;
        drop(inner);
        self.wake.send_replace(next);
    }

    /// The flow of a number.
    pub(crate) fn read(&self, number: u64) -> Read {
        let inner = self.lock();
        let first = inner.next - inner.flows.len() as u64;
        if number < first {
            return Read::Lost { count: first - number, next: first };
        }
        let place = usize::try_from(number - first).unwrap_or(usize::MAX);
        inner.flows.get(place).map_or(Read::Later, |flow| Read::Flow(Arc::clone(flow)))
    }

    /// Number of the oldest flow that is kept, and the number that the next one gets.
    pub(crate) fn range(&self) -> (u64, u64) {
        let inner = self.lock();
        (inner.next - inner.flows.len() as u64, inner.next)
    }

    /// Wakes when flows were added.
    pub(crate) fn added(&self) -> watch::Receiver<u64> {
        self.wake.subscribe()
    }

    /// When it was made.
    pub(crate) fn since(&self) -> Instant {
        self.since
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // A panic while it was held leaves whole flows behind.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reader_that_fell_behind_is_told_how_many_it_lost() {
        let ring = FlowRing::new(Instant::now());
        ring.add((0..CAPACITY + 10).map(|_| Flow::default()));
        assert_eq!(ring.read(0), Read::Lost { count: 10, next: 10 });
        assert!(matches!(ring.read(10), Read::Flow(_)));
        assert_eq!(ring.read(CAPACITY as u64 + 10), Read::Later);
        assert_eq!(ring.range(), (10, CAPACITY as u64 + 10));
    }

    #[test]
    fn flows_keep_their_order() {
        let ring = FlowRing::new(Instant::now());
        ring.add((0..3).map(|n| Flow { node_name: n.to_string(), ..Flow::default() }));
        for n in 0..3 {
            let Read::Flow(flow) = ring.read(n) else { panic!("flow {n} is gone") };
            assert_eq!(flow.node_name, n.to_string());
        }
    }
}
