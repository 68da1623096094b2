//! `fabric completion bash|zsh|fish`.

use clap::{Args, CommandFactory as _};
use clap_complete::Shell;

use super::Cli;
use crate::failure::Outcome;

/// Arguments of `fabric completion`.
#[derive(Debug, Args)]
#[command(
    before_help = "Examples:\n  source <(fabric completion bash)\n  fabric completion zsh > ~/.zfunc/_fabric\n  fabric completion fish > ~/.config/fish/completions/fabric.fish"
)]
pub struct CompletionArgs {
    /// For which shell.
    #[arg(value_enum)]
    shell: Shell,
}

/// Prints the script.
///
/// # Errors
/// Never.
pub fn run(args: &CompletionArgs) -> Outcome {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "fabric", &mut script);
    crate::output::print(String::from_utf8_lossy(&script).trim_end());
    Ok(())
}
