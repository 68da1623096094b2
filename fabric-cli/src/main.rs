//! `fabric`: one executable for the command line and for every process; `fabric-agent`, `clustermesh-api` and
//! `fabric-cni` are links to it.

use std::process::ExitCode;

use clap::Parser as _;
use clap::error::ErrorKind;
use fabric_cli::commands::Cli;
use fabric_cli::failure::Exit;

fn main() -> ExitCode {
    let mut args: Vec<std::ffi::OsString> = std::env::args_os().collect();
    let name = args.first().and_then(|a| std::path::Path::new(a).file_name()).unwrap_or_default().to_owned();
    let process = match name.to_str() {
        Some("fabric-agent") => Some("agent"),
        Some("clustermesh-api") => Some("api"),
        Some("fabric-cni") => Some("cni"),
        _ => None,
    };
    if let Some(process) = process {
        args.insert(1, process.into());
    }
    match Cli::try_parse_from(args) {
        Ok(cli) => fabric_cli::run(&cli),
        Err(error) => {
            let shown = matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion);
            // A reader that went away (`| head`) is no failure of ours.
            drop(error.print());
            ExitCode::from(if shown { 0 } else { Exit::Usage as u8 })
        }
    }
}
