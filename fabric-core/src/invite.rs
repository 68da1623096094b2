//! The one line that connects two clusters of different owners: `fabric-invite-1.…`.

use std::net::SocketAddr;
use std::time::SystemTime;

use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::error_code::{self, ErrorCode};
use crate::key::Pin;
use crate::names::ClusterName;
use crate::sealed_line::{self, LineError};
use crate::secret::Secret;
use crate::token::{field, from_unix_seconds, parse_addresses, unix_seconds};

const PREFIX: &str = "fabric-invite";

/// An invite, understood.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Invite {
    /// The cluster that invites.
    pub cluster: ClusterName,
    /// The only cluster that may use it.
    pub peer: ClusterName,
    /// Where the inviting cluster's API listens.
    pub api: Vec<SocketAddr>,
    /// Its authority: whoever answers must be signed by it.
    pub pin: Pin,
    /// Works once.
    pub secret: Secret,
    /// Not after this, whole seconds. The API decides by its own clock; this is for a clear message early.
    pub expires: SystemTime,
}

#[derive(Serialize, Deserialize)]
struct Raw {
    c: String,
    o: String,
    a: Vec<String>,
    p: String,
    s: Zeroizing<String>,
    e: u64,
}

impl Invite {
    /// The line. It holds the secret: show it once, never log it.
    pub fn to_line(&self) -> Zeroizing<String> {
        sealed_line::seal(
            PREFIX,
            &Raw {
                c: self.cluster.as_str().to_owned(),
                o: self.peer.as_str().to_owned(),
                a: self.api.iter().map(SocketAddr::to_string).collect(),
                p: self.pin.to_string(),
                s: self.secret.reveal(),
                e: unix_seconds(self.expires),
            },
        )
    }

    /// Reads the line.
    ///
    /// # Errors
    /// When it is another kind of line, damaged, or a part has no meaning.
    pub fn parse(line: &str) -> Result<Self, LineError> {
        let raw: Raw = sealed_line::open("an invite", PREFIX, line)?;
        Ok(Self {
            cluster: ClusterName::new(&raw.c).map_err(|error| field("cluster", error))?,
            peer: ClusterName::new(&raw.o).map_err(|error| field("peer", error))?,
            api: parse_addresses(&raw.a)?,
            pin: raw.p.parse().map_err(|error| field("fingerprint", error))?,
            secret: Secret::parse(&raw.s).map_err(|error| field("secret", error))?,
            expires: from_unix_seconds(raw.e)?,
        })
    }

    /// Whether it is past its end.
    pub fn is_expired(&self, now: SystemTime) -> bool {
        now >= self.expires
    }

    /// Whether a text looks like an invite: for a command that takes a name or an invite.
    pub fn looks_like(text: &str) -> bool {
        text.trim_start().starts_with(PREFIX)
    }

    /// The code of every way in which a line is no invite.
    pub const fn error_code(_: &LineError) -> ErrorCode {
        error_code::INVITE_MALFORMED
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn line_goes_both_ways() {
        let invite = Invite {
            cluster: ClusterName::new("eu").unwrap(),
            peer: ClusterName::new("us").unwrap(),
            api: vec!["192.0.2.1:4250".parse().unwrap()],
            pin: Pin::of_spki(b"authority"),
            secret: Secret::from_bytes(&mut [5; 32]),
            expires: SystemTime::UNIX_EPOCH + Duration::from_hours(500_000),
        };
        let line = invite.to_line();
        assert!(Invite::looks_like(&line));
        assert_eq!(Invite::parse(&line).unwrap(), invite);
        assert!(matches!(crate::token::JoinToken::parse(&line), Err(LineError::WrongKind { .. })));
        assert!(Invite::parse(&line[..line.len() - 1]).is_err());
    }
}
