//! Groups of named tasks: the one place that starts tasks.
//!
//! A group belongs to whoever awaits [`Tasks::join`]. A task that ends with an error, or panics, ends its group;
//! nothing dies silently.

use std::future::Future;
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use tokio::task::{JoinHandle, JoinSet};
use tokio_util::sync::CancellationToken;
use tracing::Instrument as _;

/// How long the tasks of a group may take to end once the group is cancelled.
const STOP_DEADLINE: Duration = Duration::from_secs(5);

/// A group of tasks that end together.
#[derive(Debug)]
pub struct Tasks {
    cancel: CancellationToken,
    set: JoinSet<(&'static str, anyhow::Result<()>)>,
}

impl Tasks {
    /// Makes an empty group that ends when `parent` is cancelled.
    pub fn new(parent: &CancellationToken) -> Self {
        Self { cancel: parent.child_token(), set: JoinSet::new() }
    }

    /// The token that the group's tasks watch.
    pub fn token(&self) -> CancellationToken {
        self.cancel.clone()
    }

    /// Starts a task.
    pub fn spawn<F>(&mut self, name: &'static str, task: F)
    where
        F: Future<Output = anyhow::Result<()>> + Send + 'static,
    {
        let span = tracing::info_span!("task", name);
        self.set.spawn(async move { (name, task.await) }.instrument(span));
    }

    /// Waits for the end of the group: the first task that fails, or that ends before the group is cancelled,
    /// cancels the others.
    ///
    /// # Errors
    /// The first failure, with the task's name.
    pub async fn join(mut self) -> anyhow::Result<()> {
        let mut outcome = Ok(());
        let cancel = self.cancel.clone();
        loop {
            let next = tokio::select! {
                next = self.set.join_next() => next,
                () = cancel.cancelled() => break,
            };
            let Some(ended) = next else { break };
            outcome = settle(ended, cancel.is_cancelled());
            cancel.cancel();
        }
        let drain = async {
            while let Some(ended) = self.set.join_next().await {
                let result = settle(ended, true);
                if outcome.is_ok() {
                    outcome = result;
                }
            }
        };
        if tokio::time::timeout(STOP_DEADLINE, drain).await.is_err() {
            tracing::warn!(left = self.set.len(), "tasks did not stop in time");
            self.set.abort_all();
        }
        outcome
    }
}

type Ended = Result<(&'static str, anyhow::Result<()>), tokio::task::JoinError>;

fn settle(ended: Ended, stopping: bool) -> anyhow::Result<()> {
    match ended {
        Ok((name, Ok(()))) if stopping => {
            tracing::debug!(name, "task ended");
            Ok(())
        }
        Ok((name, Ok(()))) => Err(anyhow!("task {name} ended by itself")),
        Ok((name, Err(error))) => Err(error).with_context(|| format!("task {name}")),
        Err(error) if error.is_cancelled() => Ok(()),
        Err(error) => Err(anyhow!(error).context("a task panicked")),
    }
}

/// Starts work that must come to its end even when nobody waits for it any more; it is bounded by its own deadlines.
pub(crate) fn detached(work: impl Future<Output = ()> + Send + 'static) -> JoinHandle<()> {
    tokio::spawn(work.in_current_span())
}

/// A task that serves one object (a netlink connection, for example) and ends with it.
#[derive(Debug)]
pub(crate) struct Background(JoinHandle<()>);

impl Background {
    pub(crate) fn start(task: impl Future<Output = ()> + Send + 'static) -> Self {
        Self(tokio::spawn(task))
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        self.0.abort();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_failing_task_ends_its_group() {
        let mut tasks = Tasks::new(&CancellationToken::new());
        let token = tasks.token();
        tasks.spawn("waits", async move {
            token.cancelled().await;
            Ok(())
        });
        tasks.spawn("fails", async { anyhow::bail!("no") });
        let error = tasks.join().await.unwrap_err();
        assert_eq!(format!("{error:#}"), "task fails: no");
    }

    #[tokio::test]
    async fn cancelling_the_parent_ends_the_group_in_peace() {
        let parent = CancellationToken::new();
        let mut tasks = Tasks::new(&parent);
        let token = tasks.token();
        tasks.spawn("waits", async move {
            token.cancelled().await;
            Ok(())
        });
        parent.cancel();
        tasks.join().await.unwrap();
    }

    #[tokio::test]
    async fn a_task_that_just_ends_is_an_error() {
        let mut tasks = Tasks::new(&CancellationToken::new());
        tasks.spawn("short", async { Ok(()) });
        assert!(tasks.join().await.is_err());
    }
}
