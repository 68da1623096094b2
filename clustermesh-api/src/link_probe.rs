//! Is the other cluster's mesh endpoint there, and is it the one that was pinned? Asked before a link is stored.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use fabric_core::error_code as codes;
use rustls::ClientConfig;

use crate::failure::Failure;
use crate::tls::{Connector, TlsFault, tls_fault};

/// For each address.
const PATIENCE: Duration = Duration::from_secs(3);

/// Connects to the first address that answers and does a TLS handshake with it.
///
/// The handshake proves who the other side is. Whether it lets us read is not asked: it may store its link after us.
///
/// # Errors
/// Unreachable, another authority, or a clock that is wrong, each with its own code.
pub async fn probe(cluster: &str, addresses: &[SocketAddr], tls: &Arc<ClientConfig>) -> Result<(), Failure> {
    let what = format!("mesh endpoint of cluster {cluster}");
    let mut last = Failure::refused(codes::ENDPOINT_UNREACHABLE, format_args!("{what} has no address"));
    for address in addresses {
        match Connector::new(&[*address], Arc::clone(tls)).connect(PATIENCE).await {
            Ok(_) => return Ok(()),
            // Our certificate was looked at and refused: the other side has no link to us (yet). It is there.
            Err(error) if matches!(tls_fault(&error), Some(TlsFault::Refused { .. })) => return Ok(()),
            Err(error) => {
                last = tls_failure(&what, &address.to_string(), &error);
                if last.code() != codes::ENDPOINT_UNREACHABLE {
                    // Somebody is there, and it is not whom we look for: no other address makes that good.
                    return Err(last);
                }
            }
        }
    }
    Err(last)
}

/// Why a connection failed, with the code that fits.
pub fn tls_failure(what: &str, address: &str, error: &(dyn std::error::Error + 'static)) -> Failure {
    let Some(fault) = tls_fault(error) else {
        let message = format_args!("{what} at {address} cannot be reached from the API: {error}");
        return Failure::refused(codes::ENDPOINT_UNREACHABLE, message);
    };
    let code = match &fault {
        TlsFault::NotYetValid { .. } | TlsFault::Expired { .. } => codes::CLOCK_WRONG,
        TlsFault::OtherAuthority | TlsFault::OtherName { .. } | TlsFault::Refused { .. } => codes::WRONG_AUTHORITY,
    };
    Failure::refused(code, format_args!("{what} at {address}: {fault}"))
}
