//! Puts the answers of many nodes in order of time. Knows no clock and no node.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use clustermesh_api_proto::observer::GetFlowsResponse;
use clustermesh_api_proto::observer::get_flows_response::ResponseTypes;
use tokio::time::Instant;

/// Reports of loss that one answer holds.
const MOST_LOSSES: usize = 1024;
/// How long a flow waits for an earlier one of another node.
pub(super) const WINDOW: Duration = Duration::from_millis(100);
/// Flows that wait at once; with more the oldest waits no longer.
const MOST_WAITING: usize = 4096;

/// When it happened, then in which order it came: what one node says stays in its order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    seconds: i64,
    nanos: i32,
    count: u64,
}

impl Place {
    fn new(answer: &GetFlowsResponse, count: u64) -> Self {
        let time = answer.time.unwrap_or_default();
        Self { seconds: time.seconds, nanos: time.nanos, count }
    }
}

/// Which flows of all nodes are wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Keep {
    /// The newest, so many.
    Newest(usize),
    /// The first, so many.
    First(usize),
}

/// Picks the newest or first of all flows, and holds no more than those.
#[derive(Debug)]
pub(super) struct Selection {
    keep: Keep,
    flows: BTreeMap<Place, GetFlowsResponse>,
    losses: Vec<GetFlowsResponse>,
    count: u64,
}

impl Selection {
    /// An empty selection.
    pub(super) fn new(keep: Keep) -> Self {
        Self { keep, flows: BTreeMap::new(), losses: Vec::new(), count: 0 }
    }

    /// Takes a flow or a report of loss.
    pub(super) fn add(&mut self, answer: GetFlowsResponse) {
        if !matches!(answer.response_types, Some(ResponseTypes::Flow(_))) {
            if self.losses.len() < MOST_LOSSES {
                self.losses.push(answer);
            }
            return;
        }
        self.count += 1;
        self.flows.insert(Place::new(&answer, self.count), answer);
        match self.keep {
            Keep::Newest(most) if self.flows.len() > most => drop(self.flows.pop_first()),
            Keep::First(most) if self.flows.len() > most => drop(self.flows.pop_last()),
            Keep::Newest(_) | Keep::First(_) => {}
        }
    }

    /// Reports of loss, then the flows by time.
    pub(super) fn into_answers(self) -> impl Iterator<Item = GetFlowsResponse> + Send {
        self.losses.into_iter().chain(self.flows.into_values())
    }
}

/// Lets flows wait a little for earlier ones of other nodes.
#[derive(Debug, Default)]
pub(super) struct Window {
    waiting: BTreeMap<Place, GetFlowsResponse>,
    /// In order of arrival; may name flows that wait no longer.
    arrivals: VecDeque<(Instant, Place)>,
    ready: VecDeque<GetFlowsResponse>,
    count: u64,
}

impl Window {
    /// A flow came.
    pub(super) fn handle_flow(&mut self, answer: GetFlowsResponse, now: Instant) {
        self.count += 1;
        let place = Place::new(&answer, self.count);
        self.waiting.insert(place, answer);
        self.arrivals.push_back((now, place));
        if self.waiting.len() > MOST_WAITING {
            self.release();
        }
        self.handle_timeout(now);
    }

    /// Time went on. With a flow that has waited long enough go all that happened before it.
    pub(super) fn handle_timeout(&mut self, now: Instant) {
        while let Some(&(arrival, place)) = self.arrivals.front() {
            if self.waiting.contains_key(&place) {
                if now.saturating_duration_since(arrival) < WINDOW {
                    return;
                }
                self.release();
            } else {
                self.arrivals.pop_front();
            }
        }
    }

    /// No more will come: nothing needs to wait.
    pub(super) fn handle_end(&mut self) {
        self.arrivals.clear();
        self.ready.extend(std::mem::take(&mut self.waiting).into_values());
    }

    /// When to call [`Self::handle_timeout`] at the latest.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.arrivals.front().map(|(arrival, _)| *arrival + WINDOW)
    }

    /// The next flow to pass on.
    pub(super) fn poll_event(&mut self) -> Option<GetFlowsResponse> {
        self.ready.pop_front()
    }

    fn release(&mut self) {
        self.ready.extend(self.waiting.pop_first().map(|(_, answer)| answer));
    }
}

#[cfg(test)]
mod tests {
    use clustermesh_api_proto::flow::{Flow, LostEvent};
    use proptest::prelude::*;
    use prost_types::Timestamp;

    use super::*;

    fn flow(seconds: i64) -> GetFlowsResponse {
        GetFlowsResponse {
            time: Some(Timestamp { seconds, nanos: 0 }),
            response_types: Some(ResponseTypes::Flow(Flow::default())),
            ..GetFlowsResponse::default()
        }
    }

    fn seconds(answers: impl Iterator<Item = GetFlowsResponse>) -> Vec<i64> {
        answers.map(|answer| answer.time.unwrap().seconds).collect()
    }

    fn ready(window: &mut Window) -> Vec<i64> {
        seconds(std::iter::from_fn(|| window.poll_event()))
    }

    proptest! {
        #[test]
        fn a_selection_is_the_ends_of_the_sorted_whole(times in prop::collection::vec(0i64..50, 0..60), most in 1usize..20) {
            let select = |keep| {
                let mut selection = Selection::new(keep);
                for time in &times {
                    selection.add(flow(*time));
                }
                seconds(selection.into_answers())
            };
            let mut sorted = times.clone();
            sorted.sort_unstable();
            let length = most.min(sorted.len());
            prop_assert_eq!(select(Keep::Newest(most)), &sorted[sorted.len() - length..]);
            prop_assert_eq!(select(Keep::First(most)), &sorted[..length]);
        }
    }

    #[test]
    fn losses_take_no_flows_place() {
        let mut selection = Selection::new(Keep::Newest(1));
        let lost = Some(ResponseTypes::LostEvents(LostEvent::default()));
        selection.add(flow(1));
        selection.add(GetFlowsResponse { response_types: lost, ..flow(9) });
        assert_eq!(seconds(selection.into_answers()), [9, 1]);
    }

    #[test]
    fn flows_wait_for_earlier_ones_and_no_longer() {
        let (mut window, start) = (Window::default(), Instant::now());
        assert_eq!(window.poll_timeout(), None);
        window.handle_flow(flow(5), start);
        window.handle_flow(flow(7), start + WINDOW / 2);
        window.handle_flow(flow(3), start + WINDOW / 2);
        assert!(ready(&mut window).is_empty());
        assert_eq!(window.poll_timeout(), Some(start + WINDOW));
        window.handle_timeout(start + WINDOW);
        assert_eq!(ready(&mut window), [3, 5]);
        assert_eq!(window.poll_timeout(), Some(start + WINDOW / 2 + WINDOW));
        window.handle_timeout(start + WINDOW * 2);
        assert_eq!(ready(&mut window), [7]);
        assert_eq!(window.poll_timeout(), None);
    }

    #[test]
    fn a_clock_that_is_ahead_holds_nobody_up() {
        let (mut window, start) = (Window::default(), Instant::now());
        window.handle_flow(flow(i64::MAX), start);
        window.handle_flow(flow(1), start + WINDOW);
        assert_eq!(ready(&mut window), [1, i64::MAX]);
    }

    #[test]
    fn a_full_window_passes_the_oldest_on() {
        let (mut window, now) = (Window::default(), Instant::now());
        let most = i64::try_from(MOST_WAITING).unwrap();
        (0..most).rev().for_each(|time| window.handle_flow(flow(time), now));
        assert!(ready(&mut window).is_empty());
        window.handle_flow(flow(most), now);
        assert_eq!(ready(&mut window), [0]);
        window.handle_end();
        assert_eq!(ready(&mut window), (1..=most).collect::<Vec<_>>());
        assert_eq!(window.poll_timeout(), None);
    }
}
