//! `fabric demo`: clusters of nodes and a VM as namespaces on one machine; real etcd, real agents, real eBPF, real
//! encryption. It uses only the commands and interfaces that every user has.

mod build;
mod http;
mod tour;

use std::time::Instant;

use serde::Serialize;

use crate::commands::Global;
use crate::failure::{Exit, Failure, Outcome};
use crate::output::{self, Format, Story};

pub use build::{Cluster, Demo, VM};
pub use http::{get, serve};

/// What to build.
#[derive(Debug, Clone)]
pub struct Plan {
    /// 2 to 4.
    pub clusters: u8,
    /// 1 to 4, each.
    pub nodes: u8,
    /// `vxlan`, `geneve`, `native`.
    pub routing: &'static str,
    /// Between nodes.
    pub encryption: bool,
    /// Leave everything in place.
    pub keep: bool,
}

/// One step of the tour and what came of it.
#[derive(Debug, Serialize)]
pub struct Step {
    /// What it does.
    pub step: String,
    /// Whether it held.
    pub ok: bool,
    /// How long it took.
    pub ms: u128,
    /// What was seen.
    pub detail: String,
}

#[derive(Debug, Serialize)]
struct Report<'a> {
    ok: bool,
    ms: u128,
    steps: &'a [Step],
}

/// Takes the steps in turn and tells of each; stops at the first that does not hold.
#[derive(Debug)]
pub struct Runner {
    started: Instant,
    story: Story,
    steps: Vec<Step>,
}

impl Runner {
    /// Time runs from here.
    pub fn new(story: Story) -> Self {
        Self { started: Instant::now(), story, steps: Vec::new() }
    }

    /// Since the start.
    pub fn elapsed(&self) -> std::time::Duration {
        self.started.elapsed()
    }

    /// Takes a step: its value, or the failure that ends the tour.
    ///
    /// # Errors
    /// When it does not hold.
    pub fn step<T>(&mut self, name: &str, run: impl FnOnce() -> anyhow::Result<(T, String)>) -> Result<T, Failure> {
        let started = Instant::now();
        let outcome = run();
        let ms = started.elapsed().as_millis();
        match outcome {
            Ok((value, detail)) => {
                self.story.done(&format!("{name:<34}"), &format!("{ms:>6} ms   {detail}"));
                self.steps.push(Step { step: name.to_owned(), ok: true, ms, detail });
                Ok(value)
            }
            Err(error) => {
                let detail = format!("{error:#}");
                self.story.fail(&format!("{name:<34} {ms:>6} ms   {detail}"));
                self.steps.push(Step { step: name.to_owned(), ok: false, ms, detail: detail.clone() });
                Err(Failure::new(format!("step {name:?} did not hold: {detail}")))
            }
        }
    }
}

/// Runs the tour, checks each step, tears down.
///
/// # Errors
/// When a step does not hold.
pub async fn once(global: &Global, plan: &Plan) -> Outcome {
    let mut runner = Runner::new(global.story());
    let plan = plan.clone();
    // All of it waits for other processes: off the runtime.
    let work = tokio::task::spawn_blocking(move || {
        let outcome = tour::once(&mut runner, &plan);
        (runner, outcome)
    });
    let (runner, outcome) = tokio::select! {
        done = work => done.map_err(|e| Failure::new(format!("the tour ended: {e}")))?,
        _ = tokio::signal::ctrl_c() => {
            crate::lab::remove_of_this_process();
            return Err(Failure::new("interrupted").exit(Exit::Interrupted));
        }
    };
    let report = Report { ok: outcome.is_ok(), ms: runner.elapsed().as_millis(), steps: &runner.steps };
    match global.output {
        Format::Table | Format::Wide | Format::Name => {
            let held = runner.steps.iter().filter(|s| s.ok).count();
            let seconds = runner.elapsed().as_secs_f32();
            output::print(&format!("{held} of {} steps held in {seconds:.1} s", runner.steps.len()));
        }
        format => output::document(format, "DemoReport", &report)?,
    }
    outcome
}

/// Builds it, prints the tour, stays until Ctrl-C.
///
/// # Errors
/// When it cannot be built.
pub async fn stay(global: &Global, plan: &Plan) -> Outcome {
    let mut runner = Runner::new(global.story());
    let keep = plan.keep;
    let plan = plan.clone();
    let work = tokio::task::spawn_blocking(move || tour::build(&mut runner, &plan).map(|demo| (demo, runner)));
    // A thread that waits for other processes cannot be stopped: its laboratory is taken down under it.
    let (demo, runner) = tokio::select! {
        done = work => done.map_err(|e| Failure::new(format!("the build ended: {e}")))??,
        _ = tokio::signal::ctrl_c() => {
            crate::lab::remove_of_this_process();
            return Err(Failure::new("interrupted").exit(Exit::Interrupted));
        }
    };
    output::print(&tour::text_for(&demo)?);
    let story = global.story();
    if keep {
        story.line(&format!(
            "Ready after {:.1} s. It stays; remove it with: fabric demo --clean",
            runner.elapsed().as_secs_f32()
        ));
        return Ok(());
    }
    story.line(&format!("Ready after {:.1} s. Ctrl-C takes it down.", runner.elapsed().as_secs_f32()));
    tokio::signal::ctrl_c().await?;
    story.line("taking it down");
    let down = tokio::task::spawn_blocking(move || drop(demo));
    down.await.map_err(|e| Failure::new(format!("tear-down ended: {e}")))
}
