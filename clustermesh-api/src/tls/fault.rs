//! What went wrong in a handshake, in words that tell a person what to do.

use std::error::Error;

/// Why TLS failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TlsFault {
    /// One of the two clocks is wrong, or the certificate was renewed too early.
    #[error(
        "certificate is valid only from {not_before}, but the clock here says {now}: check the clocks of both machines"
    )]
    NotYetValid {
        /// RFC 3339.
        not_before: String,
        /// RFC 3339.
        now: String,
    },
    /// It ended, or one of the two clocks is wrong.
    #[error(
        "certificate ended at {not_after}, and the clock here says {now}: renew it, or check the clocks of both machines"
    )]
    Expired {
        /// RFC 3339.
        not_after: String,
        /// RFC 3339.
        now: String,
    },
    /// The other end is not the one that was pinned.
    #[error("the server's authority is not the one expected")]
    OtherAuthority,
    /// The pinned authority vouches for it, as somebody else.
    #[error("the server is {found}, not {wanted}")]
    OtherName {
        /// Who it is.
        found: String,
        /// Who it should be.
        wanted: String,
    },
    /// The other end refused our certificate.
    #[error("the server refused our certificate: {alert}")]
    Refused {
        /// The alert's name.
        alert: String,
    },
}

/// Finds a fault of TLS in a chain of errors, as transports wrap them.
pub fn tls_fault(error: &(dyn Error + 'static)) -> Option<TlsFault> {
    let _ = error;
    todo!()
}
