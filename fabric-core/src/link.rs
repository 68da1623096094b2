//! The life of a link to another cluster, as this side sees it: connecting, synced, silent, its store down, refused,
//! blocked. A state machine: events and instants in, requests and changes of state out; it opens no connection itself.
//!
//! What was learnt stays in every state but `Blocked`: a silent remote is reported, not forgotten.
//!
//! Where to begin reading: [`State`], then the `handle_…` functions of [`Link`].

use std::collections::VecDeque;
use std::fmt;
use std::time::{Duration, Instant};

use crate::backoff::Backoff;

/// How often a word is asked for on an idle watch.
pub const PROBE_EVERY: Duration = Duration::from_secs(3);
/// A remote that said nothing for so long is silent.
pub const SILENT_AFTER: Duration = Duration::from_secs(10);
/// A connection that is not up after so long is given up and tried anew.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// First and longest wait between tries.
pub const RETRY: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));

/// What a link is. Only the data that the state has is in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    /// Not in sync: since this process began, since its store was replaced, or since it came back from silence.
    Connecting {
        /// Why the last try ended; empty before the first.
        problem: String,
    },
    /// All that the remote says is known.
    Synced,
    /// In sync once; no word for over 10 s. What was known is kept.
    Silent {
        /// When the last word came.
        last_heard: Instant,
        /// Why the connection ended; empty when it just fell silent.
        problem: String,
    },
    /// It answers, but says that its store does not.
    StoreDown,
    /// What it says of itself is not what was agreed.
    Refused {
        /// Why.
        reason: String,
    },
    /// Disconnected by a person: its prefixes are dropped, nothing is tried.
    Blocked,
}

impl State {
    /// One word, as `fabric status` spells it.
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Connecting { .. } => "connecting",
            Self::Synced => "synced",
            Self::Silent { .. } => "silent",
            Self::StoreDown => "store-down",
            Self::Refused { .. } => "refused",
            Self::Blocked => "blocked",
        }
    }

    /// Why it is in that state; empty where there is nothing to say.
    pub fn detail(&self) -> &str {
        match self {
            Self::Connecting { problem } | Self::Silent { problem, .. } => problem,
            Self::Refused { reason } => reason,
            Self::StoreDown => "it answers, but its store does not",
            Self::Synced | Self::Blocked => "",
        }
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// What the owner is to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Request {
    /// Open a connection, read everything, watch.
    Connect,
    /// Close the connection: it is dead or not wanted any more.
    Close,
    /// Ask for a word on the watch.
    Probe,
}

/// The state changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Changed {
    /// What it was.
    pub from: State,
    /// What it is.
    pub to: State,
}

/// What the connection below the state is at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Connection {
    /// None, and none is wanted.
    Off,
    /// None; the next try comes then.
    Waiting { retry_at: Instant },
    /// Asked for; no answer yet.
    Opening { since: Instant },
    /// Up; the last word and the last probe.
    Up { heard: Instant, probed: Instant },
}

/// One link.
#[derive(Debug)]
pub struct Link {
    state: State,
    connection: Connection,
    /// The last word ever.
    last_heard: Option<Instant>,
    backoff: Backoff,
    requests: VecDeque<Request>,
    events: VecDeque<Changed>,
}

impl Link {
    /// A link that wants a connection at once.
    pub fn new(now: Instant) -> Self {
        Self {
            state: State::Connecting { problem: String::new() },
            connection: Connection::Opening { since: now },
            last_heard: None,
            backoff: Backoff::new(RETRY.0, RETRY.1),
            requests: VecDeque::from([Request::Connect]),
            events: VecDeque::new(),
        }
    }

    /// A link that was cut by a person before this process began.
    pub fn new_blocked() -> Self {
        Self {
            state: State::Blocked,
            connection: Connection::Off,
            last_heard: None,
            backoff: Backoff::new(RETRY.0, RETRY.1),
            requests: VecDeque::new(),
            events: VecDeque::new(),
        }
    }

    /// What it is now.
    pub const fn state(&self) -> &State {
        &self.state
    }

    /// How long ago the remote said anything; `None` = never.
    pub fn age(&self, now: Instant) -> Option<Duration> {
        self.last_heard.map(|heard| now.saturating_duration_since(heard))
    }

    /// The remote said something: an answer, an event, progress.
    pub fn handle_word(&mut self, now: Instant) {
        match self.connection {
            Connection::Off | Connection::Waiting { .. } => return,
            Connection::Opening { .. } => self.connection = Connection::Up { heard: now, probed: now },
            Connection::Up { probed, .. } => self.connection = Connection::Up { heard: now, probed },
        }
        self.last_heard = Some(now);
        match self.state {
            // Silence ended the connection, so this is a new one: what was missed is still to be read.
            State::Silent { .. } => {
                self.change(State::Connecting { problem: "it is back; reading what was missed".to_owned() });
            }
            State::Connecting { .. } | State::Synced | State::StoreDown | State::Refused { .. } | State::Blocked => {}
        }
    }

    /// Everything that the remote has is read, and admitted where it may be.
    pub fn handle_synced(&mut self, now: Instant) {
        self.handle_word(now);
        if matches!(self.connection, Connection::Up { .. }) {
            self.backoff.reset();
            self.change(State::Synced);
        }
    }

    /// The remote answers, but its store does not (or does again, before the next [`Self::handle_synced`]).
    pub fn handle_store_down(&mut self, now: Instant) {
        self.handle_word(now);
        if matches!(self.connection, Connection::Up { .. }) {
            self.change(State::StoreDown);
        }
    }

    /// The remote's store is another one than before: what is known of it is being read afresh.
    pub fn handle_store_replaced(&mut self, now: Instant) {
        self.handle_word(now);
        if matches!(self.connection, Connection::Up { .. }) {
            self.change(State::Connecting { problem: "its store was replaced; reading it afresh".to_owned() });
        }
    }

    /// What it says of itself is not what was agreed. It is asked again after the longest wait: its owner may mend it.
    pub fn handle_refused(&mut self, reason: String, now: Instant) {
        if self.connection == Connection::Off {
            return;
        }
        self.last_heard = Some(now);
        self.requests.push_back(Request::Close);
        self.connection = Connection::Waiting { retry_at: now + RETRY.1 };
        self.change(State::Refused { reason });
    }

    /// The connection ended, or none came about. `random` spreads the tries of many.
    pub fn handle_closed(&mut self, problem: String, random: u64, now: Instant) {
        if matches!(self.connection, Connection::Off | Connection::Waiting { .. }) {
            return;
        }
        self.connection = Connection::Waiting { retry_at: now + self.backoff.next(random) };
        match &self.state {
            State::Connecting { .. } => self.change(State::Connecting { problem }),
            // Reported as silent when the time is over, not at every short break.
            State::Synced | State::StoreDown | State::Refused { .. } | State::Blocked => {}
            State::Silent { last_heard, .. } => {
                let last_heard = *last_heard;
                self.change(State::Silent { last_heard, problem });
            }
        }
        self.fall_silent(now);
    }

    /// A person cut the link.
    pub fn handle_blocked(&mut self) {
        if !matches!(self.connection, Connection::Off | Connection::Waiting { .. }) {
            self.requests.push_back(Request::Close);
        }
        self.requests.retain(|request| *request == Request::Close);
        self.connection = Connection::Off;
        self.change(State::Blocked);
    }

    /// A person made the link anew.
    pub fn handle_unblocked(&mut self, now: Instant) {
        if self.state != State::Blocked {
            return;
        }
        self.last_heard = None;
        self.backoff.reset();
        self.open(now);
        self.change(State::Connecting { problem: String::new() });
    }

    /// At or after the deadline; early or twice is harmless.
    pub fn handle_timeout(&mut self, now: Instant) {
        match self.connection {
            Connection::Off => {}
            Connection::Waiting { retry_at } if retry_at <= now => self.open(now),
            Connection::Waiting { .. } => {}
            Connection::Opening { since } if since + CONNECT_TIMEOUT <= now => {
                self.requests.push_back(Request::Close);
                self.handle_closed(format!("no connection within {} s", CONNECT_TIMEOUT.as_secs()), 0, now);
            }
            Connection::Opening { .. } => {}
            Connection::Up { heard, .. } if heard + SILENT_AFTER <= now => {
                // A half-open connection says nothing for ever: only a new one tells.
                self.requests.push_back(Request::Close);
                self.handle_closed(format!("no word for {} s", SILENT_AFTER.as_secs()), 0, now);
            }
            Connection::Up { heard, probed } => {
                if heard.max(probed) + PROBE_EVERY <= now {
                    self.connection = Connection::Up { heard, probed: now };
                    self.requests.push_back(Request::Probe);
                }
            }
        }
        self.fall_silent(now);
    }

    /// When to call [`Self::handle_timeout`] at the latest.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let connection = match self.connection {
            Connection::Off => None,
            Connection::Waiting { retry_at } => Some(retry_at),
            Connection::Opening { since } => Some(since + CONNECT_TIMEOUT),
            Connection::Up { heard, probed } => Some((heard.max(probed) + PROBE_EVERY).min(heard + SILENT_AFTER)),
        };
        [connection, self.silent_at()].into_iter().flatten().min()
    }

    /// What to do next; call until `None`.
    pub fn poll_transmit(&mut self) -> Option<Request> {
        self.requests.pop_front()
    }

    /// What changed; call until `None`.
    pub fn poll_event(&mut self) -> Option<Changed> {
        self.events.pop_front()
    }

    fn open(&mut self, now: Instant) {
        self.connection = Connection::Opening { since: now };
        self.requests.push_back(Request::Connect);
    }

    /// When a link that was in sync counts as silent.
    fn silent_at(&self) -> Option<Instant> {
        match self.state {
            State::Synced | State::StoreDown => self.last_heard.map(|heard| heard + SILENT_AFTER),
            State::Connecting { .. } | State::Silent { .. } | State::Refused { .. } | State::Blocked => None,
        }
    }

    fn fall_silent(&mut self, now: Instant) {
        if let (Some(at), Some(last_heard)) = (self.silent_at(), self.last_heard)
            && at <= now
        {
            self.change(State::Silent { last_heard, problem: "no word from it".to_owned() });
        }
    }

    fn change(&mut self, to: State) {
        if self.state == to {
            return;
        }
        let from = std::mem::replace(&mut self.state, to.clone());
        self.events.push_back(Changed { from, to });
    }
}

#[cfg(test)]
mod tests;
