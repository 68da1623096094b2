//! Named tasks that belong to somebody: the only place of this crate that starts any.
//!
//! A group ends as a whole. A member that fails, panics or ends before it was told to takes the others with it, and the
//! owner learns which one and why. Nothing dies unseen.

use std::future::Future;
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use tokio::task::{Id, JoinError, JoinSet};
use tokio_util::sync::CancellationToken;
use tracing::Instrument as _;

type Report = (&'static str, anyhow::Result<()>);

/// A group of tasks.
#[derive(Debug)]
pub struct Tasks {
    stop: CancellationToken,
    set: JoinSet<Report>,
    names: Vec<(Id, &'static str)>,
    patience: Duration,
}

impl Tasks {
    /// An empty group that stops when `parent` does. A member gets `patience` to end once it was told to.
    pub fn new(parent: &CancellationToken, patience: Duration) -> Self {
        Self { stop: parent.child_token(), set: JoinSet::new(), names: Vec::new(), patience }
    }

    /// What members listen to.
    pub fn stop_token(&self) -> CancellationToken {
        self.stop.clone()
    }

    /// Adds a member that lives as long as the group: its end before that is an error.
    pub fn add(&mut self, name: &'static str, work: impl Future<Output = anyhow::Result<()>> + Send + 'static) {
        let span = tracing::info_span!("task", name);
        let handle = self.set.spawn(async move { (name, work.await) }.instrument(span));
        self.names.push((handle.id(), name));
    }

    /// Waits until the group was stopped and all members ended.
    ///
    /// # Errors
    /// The first failure, with its member's name.
    pub async fn finish(mut self) -> anyhow::Result<()> {
        let stop = self.stop.clone();
        let first = tokio::select! {
            // A member that ended may be the reason of the stop: look at it first.
            biased;
            ended = self.set.join_next_with_id(), if !self.set.is_empty() => ended,
            () = stop.cancelled() => None,
        };
        let mut outcome = match first {
            Some(ended) => self.judge(ended, stop.is_cancelled()),
            None => Ok(()),
        };
        stop.cancel();
        let drained = tokio::time::timeout(self.patience, async {
            while let Some(ended) = self.set.join_next_with_id().await {
                let verdict = self.judge(ended, true);
                if outcome.is_ok() {
                    outcome = verdict;
                }
            }
        });
        if drained.await.is_err() {
            tracing::warn!(left = self.set.len(), "tasks did not stop in time and are dropped");
            self.set.shutdown().await;
        }
        outcome
    }

    fn judge(&self, ended: Result<(Id, Report), JoinError>, stopping: bool) -> anyhow::Result<()> {
        match ended {
            Ok((_, (_, Ok(())))) if stopping => Ok(()),
            Ok((_, (name, Ok(())))) => Err(anyhow!("task {name} ended although nobody stopped it")),
            Ok((_, (name, Err(error)))) => Err(error).with_context(|| format!("task {name}")),
            Err(error) if error.is_cancelled() => Ok(()),
            Err(error) => {
                let name = self.names.iter().find(|(id, _)| *id == error.id()).map_or("?", |(_, name)| *name);
                Err(anyhow!(error).context(format!("task {name} panicked")))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn group(parent: &CancellationToken) -> Tasks {
        Tasks::new(parent, Duration::from_secs(5))
    }

    #[tokio::test]
    async fn a_failure_stops_all_and_is_named() {
        let mut tasks = group(&CancellationToken::new());
        let stop = tasks.stop_token();
        tasks.add("patient", async move {
            stop.cancelled().await;
            Ok(())
        });
        tasks.add("broken", async { anyhow::bail!("no luck") });
        assert_eq!(format!("{:#}", tasks.finish().await.unwrap_err()), "task broken: no luck");
    }

    #[tokio::test]
    async fn a_panic_is_named() {
        let mut tasks = group(&CancellationToken::new());
        tasks.add("wild", async { panic!("boom") });
        assert!(format!("{:#}", tasks.finish().await.unwrap_err()).starts_with("task wild panicked"));
    }

    #[tokio::test]
    async fn an_end_without_a_stop_is_an_error_and_with_one_is_not() {
        let mut early = group(&CancellationToken::new());
        early.add("early", async { Ok(()) });
        assert!(early.finish().await.is_err());

        let parent = CancellationToken::new();
        let mut tasks = group(&parent);
        let stop = tasks.stop_token();
        tasks.add("late", async move {
            stop.cancelled().await;
            Ok(())
        });
        parent.cancel();
        tasks.finish().await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_does_not_listen_is_dropped_after_the_deadline() {
        let parent = CancellationToken::new();
        let mut tasks = group(&parent);
        tasks.add("deaf", std::future::pending());
        parent.cancel();
        tasks.finish().await.unwrap();
    }
}
