//! Links through their public functions, in virtual time.

use proptest::prelude::*;

use super::*;

struct Bench {
    link: Link,
    start: Instant,
    now: Instant,
}

impl Bench {
    fn new() -> Self {
        // Any instant will do: only differences matter.
        let start = Instant::now();
        Self { link: Link::new(start), start, now: start }
    }

    /// Lets time pass, calling back at each deadline.
    fn pass(&mut self, duration: Duration) -> Vec<Request> {
        let end = self.now + duration;
        let mut requests = self.drain();
        while let Some(at) = self.link.poll_timeout().filter(|at| *at <= end) {
            assert!(at >= self.start, "deadline before the beginning");
            self.now = self.now.max(at);
            self.link.handle_timeout(self.now);
            requests.extend(self.drain());
            assert!(self.link.poll_timeout().is_none_or(|next| next > self.now), "deadline that does not move");
        }
        self.now = end;
        requests
    }

    fn drain(&mut self) -> Vec<Request> {
        std::iter::from_fn(|| self.link.poll_transmit()).collect()
    }

    fn states(&mut self) -> Vec<&'static str> {
        std::iter::from_fn(|| self.link.poll_event()).map(|changed| changed.to.as_str()).collect()
    }

    fn synced() -> Self {
        let mut bench = Self::new();
        bench.link.handle_synced(bench.now);
        assert_eq!(bench.drain(), [Request::Connect]);
        assert_eq!(bench.states(), ["synced"]);
        bench
    }
}

#[test]
fn an_idle_link_is_probed_and_stays_synced_while_it_answers() {
    let mut bench = Bench::synced();
    for _ in 0..20 {
        assert_eq!(bench.pass(PROBE_EVERY), [Request::Probe]);
        bench.link.handle_word(bench.now);
    }
    assert_eq!(bench.link.state(), &State::Synced);
    assert_eq!(bench.link.age(bench.now), Some(Duration::ZERO));
}

#[test]
fn a_mute_remote_is_silent_after_ten_seconds_and_tried_anew() {
    let mut bench = Bench::synced();
    let requests = bench.pass(SILENT_AFTER.saturating_sub(Duration::from_millis(1)));
    assert_eq!(requests, [Request::Probe; 3]);
    assert_eq!(bench.link.state(), &State::Synced);
    let requests = bench.pass(Duration::from_secs(1));
    assert_eq!(requests, [Request::Close, Request::Connect]);
    assert_eq!(bench.states(), ["silent"]);
    bench.link.handle_word(bench.now);
    bench.link.handle_synced(bench.now);
    assert_eq!(bench.states(), ["connecting", "synced"]);
}

#[test]
fn a_short_break_is_not_reported() {
    let mut bench = Bench::synced();
    bench.link.handle_closed("reset".to_owned(), 0, bench.now);
    assert_eq!(bench.pass(Duration::from_secs(1)), [Request::Connect]);
    bench.link.handle_word(bench.now);
    bench.link.handle_synced(bench.now);
    assert_eq!(bench.states(), Vec::<&str>::new());
}

#[test]
fn a_remote_that_is_gone_becomes_silent_while_it_is_tried() {
    let mut bench = Bench::synced();
    let mut tries = 0;
    bench.link.handle_closed("reset".to_owned(), 7, bench.now);
    for _ in 0..120 {
        let requests = bench.pass(Duration::from_millis(500));
        if requests.contains(&Request::Connect) {
            tries += 1;
            bench.link.handle_closed("connection refused".to_owned(), 7, bench.now);
        }
    }
    assert!((12..40).contains(&tries), "{tries} tries in 60 s");
    assert_eq!(bench.link.state().as_str(), "silent");
    assert_eq!(bench.link.state().detail(), "connection refused");
    assert_eq!(bench.link.age(bench.now), Some(Duration::from_mins(1)));
}

#[test]
fn a_connection_that_never_comes_up_is_given_up() {
    let mut bench = Bench::new();
    let requests = bench.pass(CONNECT_TIMEOUT + Duration::from_secs(1));
    assert_eq!(requests, [Request::Connect, Request::Close, Request::Connect]);
    assert_eq!(bench.link.state().detail(), "no connection within 10 s");
    assert_eq!(bench.link.age(bench.now), None);
}

#[test]
fn store_down_is_a_state_of_its_own() {
    let mut bench = Bench::synced();
    bench.link.handle_store_down(bench.now);
    bench.link.handle_word(bench.now);
    assert_eq!(bench.link.state(), &State::StoreDown);
    bench.link.handle_synced(bench.now);
    bench.link.handle_store_replaced(bench.now);
    bench.link.handle_synced(bench.now);
    assert_eq!(bench.states(), ["store-down", "synced", "connecting", "synced"]);
}

#[test]
fn a_refused_remote_is_asked_again_later() {
    let mut bench = Bench::new();
    bench.drain();
    bench.link.handle_refused("cluster id 3, but 2 was agreed".to_owned(), bench.now);
    assert_eq!(bench.pass(RETRY.1), [Request::Close, Request::Connect]);
    assert_eq!(bench.link.state().as_str(), "refused");
    bench.link.handle_synced(bench.now);
    assert_eq!(bench.states(), ["refused", "synced"]);
}

#[test]
fn a_blocked_link_does_nothing_until_it_is_made_anew() {
    let mut bench = Bench::synced();
    bench.link.handle_blocked();
    assert_eq!(bench.pass(Duration::from_hours(1)), [Request::Close]);
    assert_eq!(bench.link.poll_timeout(), None);
    bench.link.handle_word(bench.now);
    bench.link.handle_synced(bench.now);
    bench.link.handle_refused("late".to_owned(), bench.now);
    bench.link.handle_closed("late".to_owned(), 0, bench.now);
    assert_eq!(bench.link.state(), &State::Blocked);
    bench.link.handle_unblocked(bench.now);
    assert_eq!(bench.drain(), [Request::Connect]);
    assert_eq!(bench.states(), ["blocked", "connecting"]);
    assert_eq!(Link::new_blocked().poll_timeout(), None);
}

proptest! {
    /// Whatever happens: deadlines move, a link in sync that hears nothing is silent within 10 s, and a blocked one opens nothing.
    #[test]
    fn any_order_of_events_keeps_the_promises(steps in proptest::collection::vec((0u8..9, 0u64..4000), 0..80)) {
        let mut bench = Bench::new();
        for (event, wait) in steps {
            let requests = bench.pass(Duration::from_millis(wait));
            let blocked = bench.link.state() == &State::Blocked;
            prop_assert!(!(blocked && wait > 0 && requests.contains(&Request::Connect)));
            if bench.link.state() == &State::Synced {
                prop_assert!(bench.link.age(bench.now).unwrap() < SILENT_AFTER);
            }
            match event {
                0 => bench.link.handle_word(bench.now),
                1 => bench.link.handle_synced(bench.now),
                2 => bench.link.handle_store_down(bench.now),
                3 => bench.link.handle_store_replaced(bench.now),
                4 => bench.link.handle_refused("no".to_owned(), bench.now),
                5 => bench.link.handle_closed("gone".to_owned(), wait, bench.now),
                6 => { bench.link.handle_blocked(); bench.drain(); }
                7 => bench.link.handle_unblocked(bench.now),
                _ => bench.link.handle_timeout(bench.now),
            }
        }
    }
}
