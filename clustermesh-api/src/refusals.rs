//! What was refused, by reason: a count and the newest example. Shown by `fabric status`; logged at most once a minute.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use clustermesh_api_proto::fabric::v1 as proto;

/// An example is cut to this many characters.
const EXAMPLE_CHARS: usize = 300;
/// Between two lines about one reason.
const LOG_PAUSE: Duration = Duration::from_mins(1);

/// Counts of one source (a remote cluster, our own nodes). Clones share them.
#[derive(Debug, Clone, Default)]
pub struct Refusals {
    reasons: Arc<Mutex<BTreeMap<&'static str, Reason>>>,
}

#[derive(Debug)]
struct Reason {
    count: u64,
    example: String,
    logged: Option<Instant>,
    unlogged: u64,
}

impl Refusals {
    /// Counts one. `reason` is of a closed set; `example` names the key and says why.
    pub fn count(&self, source: &str, reason: &'static str, example: impl std::fmt::Display) {
        let example: String = example.to_string().chars().take(EXAMPLE_CHARS).collect();
        let mut reasons = self.reasons.lock().unwrap_or_else(PoisonError::into_inner);
        let entry = reasons.entry(reason).or_insert_with(|| Reason {
            count: 0,
            example: String::new(),
            logged: None,
            unlogged: 0,
        });
        entry.count += 1;
        entry.unlogged += 1;
        if entry.logged.is_none_or(|at| at.elapsed() >= LOG_PAUSE) {
            tracing::warn!(source, reason, times = entry.unlogged, "refused; fabric status shows an example");
            entry.logged = Some(Instant::now());
            entry.unlogged = 0;
        }
        entry.example = example;
    }

    /// As the command line shows them.
    pub fn to_proto(&self) -> Vec<proto::Refusal> {
        let reasons = self.reasons.lock().unwrap_or_else(PoisonError::into_inner);
        reasons
            .iter()
            .map(|(reason, entry)| proto::Refusal {
                reason: (*reason).to_owned(),
                count: entry.count,
                example: entry.example.clone(),
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_by_reason_and_keeps_the_newest_example() {
        let refusals = Refusals::default();
        refusals.count("us", "address_prefix", "a");
        refusals.count("us", "address_prefix", "b".repeat(1000));
        refusals.count("us", "identity_range", "c");
        let shown = refusals.to_proto();
        assert_eq!(shown.len(), 2);
        assert_eq!((shown[0].count, shown[0].example.len()), (2, EXAMPLE_CHARS));
    }
}
