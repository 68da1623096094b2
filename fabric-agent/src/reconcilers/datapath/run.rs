//! The reconciler's loop: woken by tables and deadlines, works on a blocking thread.

use std::time::{Duration, Instant};

use anyhow::Context as _;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::{DatapathReconciler, Realised};
use crate::tables::Reader;

/// How often the maps are read anew, to repair what others changed.
const FULL_PASS: Duration = Duration::from_mins(1);
/// How often flows that no longer count are forgotten.
const FLOW_SWEEP: Duration = Duration::from_secs(15);

/// Runs until cancelled.
pub(crate) async fn run(
    mut reconciler: DatapathReconciler,
    mut tables: Reader,
    realised: watch::Sender<Realised>,
    cancel: CancellationToken,
) -> anyhow::Result<()> {
    let mut full_pass = Instant::now() + FULL_PASS;
    let mut flow_sweep = Instant::now() + FLOW_SWEEP;
    loop {
        if let Some(snapshot) = tables.snapshot() {
            let (reload, sweep) = (Instant::now() >= full_pass, Instant::now() >= flow_sweep);
            let work = move || {
                if reload && let Err(error) = reconciler.reload() {
                    tracing::warn!(%error, "the kernel's maps could not be read anew");
                }
                if sweep && let Err(error) = reconciler.sweep_flows() {
                    tracing::warn!(%error, "old flows could not be removed");
                }
                let outcome = reconciler.pass(&snapshot, Instant::now());
                (reconciler, outcome)
            };
            let (back, outcome) = tokio::task::spawn_blocking(work).await.context("a pass over the maps panicked")?;
            reconciler = back;
            if reload {
                full_pass = Instant::now() + FULL_PASS;
            }
            if sweep {
                flow_sweep = Instant::now() + FLOW_SWEEP;
            }
            publish(&realised, outcome);
        }
        let deadline = reconciler.retry_at().into_iter().chain([full_pass, flow_sweep]).min().unwrap_or(full_pass);
        tokio::select! {
            changed = tables.changed() => if changed.is_err() { return Ok(()) },
            () = tokio::time::sleep_until(deadline.into()) => {}
            () = cancel.cancelled() => return Ok(()),
        }
    }
}

fn publish(realised: &watch::Sender<Realised>, outcome: Realised) {
    let before = realised.borrow().problems.clone();
    for problem in outcome.problems.iter().filter(|problem| !before.contains(problem)) {
        tracing::error!(problem, "the kernel's maps are not as they should be");
    }
    realised.send_replace(outcome);
}
