//! The CNI plugin: what a container runtime runs as `fabric-cni`.
//!
//! It follows version 1.0.0 of the CNI specification and answers in the version asked for, 0.3.0 to 1.0.0. It holds no
//! state and touches no device: it reads its environment and standard input, asks the agent over its local socket, and
//! writes one JSON object to standard output. What it does not do: address management by other plugins (`ipam`) and
//! running after another plugin of a list.

mod answer;
mod client;
mod request;

use std::io::{Read as _, Write as _};
use std::process::ExitCode;

use serde_json::Value;

pub use client::{ConnectError, connect};
pub use request::Environment;

use answer::CniError;
use request::{Command, Request};

/// Most bytes of a network configuration that are read.
const MAX_CONFIG_BYTES: u64 = 1 << 20;

/// Runs the plugin as the container runtime asks in environment and standard input.
pub fn main() -> ExitCode {
    let mut input = Vec::new();
    let read = std::io::stdin().lock().take(MAX_CONFIG_BYTES).read_to_end(&mut input);
    let outcome = match read {
        Ok(_) => run(&Environment::of_process(), &input),
        Err(error) => Err(CniError::io("standard input cannot be read", &error)),
    };
    let (text, code) = match outcome {
        Ok(Some(answer)) => (answer.to_string(), ExitCode::SUCCESS),
        Ok(None) => (String::new(), ExitCode::SUCCESS),
        Err(error) => (error.to_json(request::version_of(&input)).to_string(), ExitCode::FAILURE),
    };
    // Nobody is left to tell when standard output is closed.
    let _ = std::io::stdout().lock().write_all(text.as_bytes());
    code
}

/// Runs one command; `None` is success without an answer.
///
/// # Errors
/// The error object that the specification wants.
fn run(environment: &Environment, input: &[u8]) -> Result<Option<Value>, CniError> {
    let request = Request::parse(environment, input)?;
    if let Command::Version = request.command {
        return Ok(Some(answer::versions(request.version)));
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| CniError::io("the runtime cannot start", &error))?;
    runtime.block_on(client::perform(&request))
}

#[cfg(test)]
mod tests;
