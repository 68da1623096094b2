//! The processes: `fabric agent|api|wireguard|supervise`, each also by the name that its link has.

use clap::Args;
use tokio_util::sync::CancellationToken;

use super::{Dirs, Global};
use crate::failure::{Failure, Outcome};
use crate::{runtime, supervise};

/// Arguments of the processes.
#[derive(Debug, Args)]
pub struct ProcessArgs {
    #[command(flatten)]
    dirs: Dirs,
}

/// `fabric supervise`.
///
/// # Errors
/// When there is nothing to supervise, or another supervisor runs.
pub async fn supervise(_global: &Global, args: &ProcessArgs) -> Outcome {
    let stop = CancellationToken::new();
    let guard = runtime::cancel_on_signal(stop.clone())?;
    let outcome = supervise::run(&args.dirs.state_dir, &args.dirs.run_dir, stop).await;
    guard.abort();
    outcome
}
