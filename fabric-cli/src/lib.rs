//! `fabric`: commands, output, the demo, and the laboratory that demo and tests stand on.
//!
//! Where to begin reading: [`commands::Cli`] (the command tree), [`lab::Lab`] (machines as namespaces).

pub mod client;
pub mod commands;
pub mod context;
pub mod demo;
pub mod duration;
pub mod failure;
pub mod lab;
pub mod machine;
pub mod output;
pub mod runtime;
pub mod supervise;
pub mod systemd;

use std::process::ExitCode;

use commands::{Cli, Command};
use failure::Outcome;

/// Runs a parsed command line; the exit code is as documented in [`failure::Exit`].
pub fn run(cli: &Cli) -> ExitCode {
    let outcome = match &cli.command {
        Command::Cni => return fabric_agent::cni::main(),
        Command::Explain(args) => commands::explain::run(&cli.global, args),
        Command::Doctor(args) => commands::doctor::run(&cli.global, args),
        Command::Completion(args) => commands::completion::run(args),
        Command::Reference => commands::reference::run(),
        Command::Wireguard(args) => match commands::process::wireguard(&cli.global, args) {
            Ok(code) => return code,
            Err(failure) => Err(failure),
        },
        _ => runtime::block_on(run_async(cli)),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            output::failure(cli.global.output, &failure);
            ExitCode::from(failure.exit as u8)
        }
    }
}

async fn run_async(cli: &Cli) -> Outcome {
    let global = &cli.global;
    match &cli.command {
        Command::Up(args) => commands::up::run(global, args).await,
        Command::Connect(args) => commands::connect::connect(global, args).await,
        Command::Disconnect(args) => commands::connect::disconnect(global, args).await,
        Command::Invite(args) => commands::invite::run(global, args).await,
        Command::Join(args) => commands::join::run(global, args).await,
        Command::Leave(args) => commands::join::leave(global, args).await,
        Command::Status(args) => commands::status::run(global, args).await,
        Command::Observe(args) => commands::observe::run(global, args).await,
        Command::Service(command) => commands::service::run(global, command).await,
        Command::Apply(args) => commands::apply::apply(global, args).await,
        Command::Get(args) => commands::apply::get(global, args).await,
        Command::Delete(args) => commands::apply::delete(global, args).await,
        Command::Token(command) => commands::token::run(global, command).await,
        Command::Node(command) => commands::node::run(global, command).await,
        Command::Link(command) => commands::link::run(global, command).await,
        Command::Identity(command) => commands::identity::run(global, command).await,
        Command::Workload(command) => commands::workload::run(global, command).await,
        Command::Demo(args) => commands::demo::run(global, args).await,
        Command::Supervise(args) => commands::process::supervise(global, args).await,
        Command::Agent(args) => commands::process::agent(global, args).await,
        Command::Api(args) => commands::process::api(global, args).await,
        // Done before there was a runtime.
        Command::Cni
        | Command::Doctor(_)
        | Command::Explain(_)
        | Command::Completion(_)
        | Command::Reference
        | Command::Wireguard(_) => Ok(()),
    }
}
