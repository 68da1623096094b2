//! The user-space engine as a process: `engine INTERFACE SOCKET_DIR STATE_FILE [FWMARK]`. What `fabric wireguard` runs;
//! the crate's own tests start it. `ENGINE_LOG` filters its log.

use std::process::ExitCode;

use fabric_wireguard::engine::user;

fn main() -> ExitCode {
    let mut args = std::env::args().skip(1);
    let (Some(interface), Some(socket_dir), Some(state_file)) = (args.next(), args.next(), args.next()) else {
        return ExitCode::from(2);
    };
    let Ok(interface) = interface.parse() else { return ExitCode::from(2) };
    let filter = tracing_subscriber::EnvFilter::from_env("ENGINE_LOG");
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    let fwmark = args.next().and_then(|mark| mark.parse().ok());
    let config = user::Config { interface, socket_dir: socket_dir.into(), state_file: state_file.into(), fwmark };
    match user::run(&config) {
        Ok(()) => ExitCode::SUCCESS,
        Err(err) => {
            let mut text = err.to_string();
            let mut source = std::error::Error::source(&err);
            while let Some(inner) = source {
                text = format!("{text}: {inner}");
                source = inner.source();
            }
            // The one place of this program that speaks.
            let _ = std::io::Write::write_all(&mut std::io::stderr(), format!("{text}\n").as_bytes());
            ExitCode::FAILURE
        }
    }
}
