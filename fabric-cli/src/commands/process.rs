//! The processes: `fabric agent|api|wireguard|supervise`, each also by the name that its link has.

use std::process::ExitCode;

use clap::Args;
use fabric_core::cluster::Encryption;
use fabric_core::config::{ApiConfig, NodeConfig};
use fabric_core::error_code;
use tokio_util::sync::CancellationToken;

use super::{Dirs, Global};
use crate::failure::{Exit, Failure, Outcome};
use crate::{machine, runtime, supervise};

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
pub async fn supervise(global: &Global, args: &ProcessArgs) -> Outcome {
    runtime::start_logging(global.verbose);
    let stop = CancellationToken::new();
    let guard = runtime::cancel_on_signal(stop.clone())?;
    let outcome = supervise::run(&args.dirs.state_dir, &args.dirs.run_dir, stop).await;
    guard.abort();
    outcome
}

/// `fabric agent`.
///
/// # Errors
/// When it cannot start, or a part of it ends.
pub async fn agent(global: &Global, args: &ProcessArgs) -> Outcome {
    runtime::start_logging(global.verbose);
    let config = node_config(args)?;
    let stop = CancellationToken::new();
    let guard = runtime::cancel_on_signal(stop.clone())?;
    let outcome = fabric_agent::run(config, stop).await;
    guard.abort();
    outcome.map_err(|e| Failure::from(anyhow::Error::new(e)))
}

/// `fabric api`.
///
/// # Errors
/// When it cannot start, or a part of it ends.
pub async fn api(global: &Global, args: &ProcessArgs) -> Outcome {
    runtime::start_logging(global.verbose);
    let config: ApiConfig = machine::read_yaml(&args.dirs.state_dir.join("api.yaml"))?;
    config.validate().map_err(|e| Failure::new(e.to_string()).code(error_code::CONFIG_INVALID))?;
    let stop = CancellationToken::new();
    let guard = runtime::cancel_on_signal(stop.clone())?;
    let outcome = clustermesh_api::run(config, stop).await;
    guard.abort();
    outcome.map_err(|e| Failure::from(anyhow::Error::new(e)))
}

/// `fabric wireguard`: plain threads, no runtime.
///
/// # Errors
/// When the engine cannot start; exit code 77 where this node needs none.
pub fn wireguard(global: &Global, args: &ProcessArgs) -> Result<ExitCode, Failure> {
    runtime::start_logging(global.verbose);
    let config = node_config(args)?;
    if config.encryption == Encryption::None || !fabric_agent::needs_engine(&config) {
        return Ok(ExitCode::from(supervise::NOT_NEEDED));
    }
    let engine = fabric_wireguard::Config {
        interface: config.wireguard.interface.parse().map_err(|e| Failure::new(format!("{e}")))?,
        socket_dir: config.wireguard.socket_dir.clone(),
        state_file: config.wireguard_state_file(),
        fwmark: None,
    };
    fabric_wireguard::engine::user::run(&engine)
        .map_err(|e| Failure::from(anyhow::Error::new(e)).exit(Exit::Failed))?;
    Ok(ExitCode::SUCCESS)
}

fn node_config(args: &ProcessArgs) -> Result<NodeConfig, Failure> {
    let config: NodeConfig = machine::read_yaml(&args.dirs.state_dir.join("node.yaml"))?;
    config.validate().map_err(|e| Failure::new(e.to_string()).code(error_code::CONFIG_INVALID))?;
    Ok(config)
}
