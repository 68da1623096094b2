//! What went wrong in a handshake, in words that tell a person what to do.

use std::error::Error;
use std::io;
use std::sync::Arc;

use rustls::{AlertDescription, CertificateError, OtherError};
use rustls_pki_types::UnixTime;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

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
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(fault) = error.downcast_ref::<TlsFault>() {
            return Some(fault.clone());
        }
        if let Some(error) = error.downcast_ref::<rustls::Error>() {
            return of_rustls(error);
        }
        // An I/O error does not name the error it carries as its source, but that one's source.
        let inner = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        next = inner.map(|inner| inner as &(dyn Error + 'static)).or_else(|| error.source());
    }
    None
}

fn of_rustls(error: &rustls::Error) -> Option<TlsFault> {
    match error {
        rustls::Error::InvalidCertificate(error) => of_certificate(error),
        rustls::Error::AlertReceived(alert) => Some(TlsFault::Refused { alert: alert_meaning(*alert) }),
        _ => None,
    }
}

fn of_certificate(error: &CertificateError) -> Option<TlsFault> {
    match error {
        CertificateError::NotValidYetContext { time, not_before } => {
            Some(TlsFault::NotYetValid { not_before: rfc3339(*not_before), now: rfc3339(*time) })
        }
        CertificateError::ExpiredContext { time, not_after } => {
            Some(TlsFault::Expired { not_after: rfc3339(*not_after), now: rfc3339(*time) })
        }
        CertificateError::UnknownIssuer => Some(TlsFault::OtherAuthority),
        CertificateError::Other(OtherError(inner)) => inner.downcast_ref::<TlsFault>().cloned(),
        _ => None,
    }
}

fn alert_meaning(alert: AlertDescription) -> String {
    match alert {
        AlertDescription::CertificateExpired => {
            "it is not valid now by the server's clock: renew it, or check the clocks of both machines".to_owned()
        }
        AlertDescription::UnknownCA => "its authority is not known there".to_owned(),
        AlertDescription::CertificateRequired => "one is needed".to_owned(),
        other => format!("{other:?}"),
    }
}

fn rfc3339(time: UnixTime) -> String {
    let seconds = i64::try_from(time.as_secs()).unwrap_or(i64::MAX);
    let text = OffsetDateTime::from_unix_timestamp(seconds).ok().and_then(|time| time.format(&Rfc3339).ok());
    text.unwrap_or_else(|| format!("{seconds} s after 1970"))
}

/// webpki's errors as rustls has them, so that alerts and messages come out right.
pub(super) fn certificate_error(error: &webpki::Error) -> CertificateError {
    match error {
        webpki::Error::CertNotValidYet { time, not_before } => {
            CertificateError::NotValidYetContext { time: *time, not_before: *not_before }
        }
        webpki::Error::CertExpired { time, not_after } => {
            CertificateError::ExpiredContext { time: *time, not_after: *not_after }
        }
        webpki::Error::UnknownIssuer => CertificateError::UnknownIssuer,
        webpki::Error::BadDer | webpki::Error::BadDerTime => CertificateError::BadEncoding,
        webpki::Error::InvalidSignatureForPublicKey => CertificateError::BadSignature,
        other => CertificateError::Other(OtherError(Arc::new(other.clone()))),
    }
}
