//! What is wrong right now, by part: for status and reports. A part that recovers clears its entry.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

/// Problems by part. Clones share them.
#[derive(Debug, Clone, Default)]
pub(crate) struct Health(Arc<Mutex<BTreeMap<&'static str, String>>>);

impl Health {
    /// Notes that a part does not work, with its causes; logs it when it is news.
    pub(crate) fn set(&self, part: &'static str, error: &dyn std::error::Error) {
        let mut text = error.to_string();
        let mut cause = error.source();
        while let Some(error) = cause {
            text = format!("{text}: {error}");
            cause = error.source();
        }
        self.set_text(part, text);
    }

    /// The same for a problem that is no error value.
    pub(crate) fn set_text(&self, part: &'static str, text: String) {
        let mut problems = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if problems.get(part) != Some(&text) {
            tracing::warn!(part, problem = %text, "degraded");
            problems.insert(part, text);
        }
    }

    /// Notes that a part works.
    pub(crate) fn clear(&self, part: &'static str) {
        if self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(part).is_some() {
            tracing::info!(part, "recovered");
        }
    }

    /// All problems, each with its part in front.
    pub(crate) fn problems(&self) -> Vec<String> {
        let problems = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        problems.iter().map(|(part, text)| format!("{part}: {text}")).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_that_recovers_is_healthy() {
        let health = Health::default();
        let inner = std::io::Error::other("inner");
        health.set("routes", &std::io::Error::new(std::io::ErrorKind::NotFound, inner));
        assert_eq!(health.problems(), ["routes: inner"]);
        health.clear("routes");
        assert!(health.problems().is_empty());
    }
}
