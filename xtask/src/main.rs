//! Our automation: set the machine up, test, lint, keep the rules of the code base, measure.
//!
//! `make` calls it; `cargo xtask` does too.

mod bench;
mod deps;
mod generate;
mod lint;
mod run;
mod setup;
mod test;
mod tidy;

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(about = "Automation of the Fabric code base")]
struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Install what is missing on this machine.
    Setup,
    /// Run every test.
    Test {
        /// Only tests whose name holds this.
        filter: Option<String>,
    },
    /// rustfmt, clippy, tidy and cargo deny.
    Lint,
    /// Hold the tree to the rules that a compiler does not know.
    Tidy,
    /// Make the files that are made from code: docs/cli.md.
    Gen,
    /// Measure: print a table and write it as JSON.
    Bench {
        /// Which one; without a name, the list.
        name: Option<String>,
    },
}

fn main() -> anyhow::Result<()> {
    match Args::parse().command {
        Command::Setup => setup::run(),
        Command::Test { filter } => test::run(filter.as_deref()),
        Command::Lint => lint::run(),
        Command::Tidy => tidy::run(),
        Command::Gen => generate::run(),
        Command::Bench { name } => bench::run(name.as_deref()),
    }
}
