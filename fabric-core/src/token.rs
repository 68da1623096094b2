//! The one line that makes a machine join a cluster: `fabric-join-1.…`.

use std::net::SocketAddr;
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::error_code::{self, ErrorCode};
use crate::key::Pin;
use crate::names::{ClusterName, NodeName};
use crate::sealed_line::{self, LineError};
use crate::secret::Secret;

const PREFIX: &str = "fabric-join";
/// Most addresses of an API in a line.
pub(crate) const MAX_ADDRESSES: usize = 16;

/// What a member of a cluster is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MemberKind {
    /// Runs endpoints.
    #[default]
    Node,
    /// Is itself the one endpoint (VM, bare metal).
    Machine,
}

impl MemberKind {
    /// As users write it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Node => "node",
            Self::Machine => "machine",
        }
    }
}

impl std::fmt::Display for MemberKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.as_str())
    }
}

/// A join token, understood.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JoinToken {
    /// The cluster to join.
    pub cluster: ClusterName,
    /// Where its API listens.
    pub api: Vec<SocketAddr>,
    /// Its authority: whoever answers must be signed by it.
    pub pin: Pin,
    /// Works once.
    pub secret: Secret,
    /// Not after this, whole seconds. The API decides by its own clock; this is for a clear message early.
    pub expires: SystemTime,
    /// What the joining machine becomes.
    pub kind: MemberKind,
    /// The name that the token fixes; a machine's always.
    pub name: Option<NodeName>,
}

#[derive(Serialize, Deserialize)]
struct Raw {
    c: String,
    a: Vec<String>,
    p: String,
    s: Zeroizing<String>,
    e: u64,
    k: MemberKind,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    n: Option<String>,
}

impl JoinToken {
    /// The line. It holds the secret: show it once, never log it.
    pub fn to_line(&self) -> Zeroizing<String> {
        sealed_line::seal(
            PREFIX,
            &Raw {
                c: self.cluster.as_str().to_owned(),
                a: self.api.iter().map(SocketAddr::to_string).collect(),
                p: self.pin.to_string(),
                s: self.secret.reveal(),
                e: unix_seconds(self.expires),
                k: self.kind,
                n: self.name.as_ref().map(|name| name.as_str().to_owned()),
            },
        )
    }

    /// Reads the line.
    ///
    /// # Errors
    /// When it is another kind of line, damaged, or a part has no meaning.
    pub fn parse(line: &str) -> Result<Self, LineError> {
        let raw: Raw = sealed_line::open("a join token", PREFIX, line)?;
        let name = raw.n.map(|name| NodeName::new(&name)).transpose().map_err(|error| field("name", error))?;
        Ok(Self {
            cluster: ClusterName::new(&raw.c).map_err(|error| field("cluster", error))?,
            api: parse_addresses(&raw.a)?,
            pin: raw.p.parse().map_err(|error| field("fingerprint", error))?,
            secret: Secret::parse(&raw.s).map_err(|error| field("secret", error))?,
            expires: from_unix_seconds(raw.e)?,
            kind: raw.k,
            name,
        })
    }

    /// Whether it is past its end.
    pub fn is_expired(&self, now: SystemTime) -> bool {
        now >= self.expires
    }

    /// The code of every way in which a line is no token.
    pub const fn error_code(_: &LineError) -> ErrorCode {
        error_code::TOKEN_MALFORMED
    }
}

pub(crate) fn field(field: &'static str, reason: impl std::fmt::Display) -> LineError {
    LineError::Field { field, reason: reason.to_string() }
}

pub(crate) fn parse_addresses(texts: &[String]) -> Result<Vec<SocketAddr>, LineError> {
    if texts.is_empty() || texts.len() > MAX_ADDRESSES {
        return Err(field("addresses", "there must be 1 to 16"));
    }
    texts.iter().map(|text| text.parse().map_err(|error| field("addresses", error))).collect()
}

pub(crate) fn unix_seconds(time: SystemTime) -> u64 {
    time.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

pub(crate) fn from_unix_seconds(seconds: u64) -> Result<SystemTime, LineError> {
    // Beyond the year 9999 no text form exists.
    let in_range = (seconds < 253_402_300_800).then_some(seconds);
    let time = in_range.and_then(|seconds| SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(seconds)));
    time.ok_or_else(|| field("expiry", "not a time"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn token() -> JoinToken {
        JoinToken {
            cluster: ClusterName::new("eu").unwrap(),
            api: vec!["192.0.2.1:4250".parse().unwrap(), "[2001:db8::1]:4250".parse().unwrap()],
            pin: Pin::of_spki(b"authority"),
            secret: Secret::from_bytes(&mut [5; 32]),
            expires: SystemTime::UNIX_EPOCH + Duration::from_hours(500_000),
            kind: MemberKind::Machine,
            name: NodeName::new("db1").ok(),
        }
    }

    #[test]
    fn line_goes_both_ways() {
        let line = token().to_line();
        assert!(line.starts_with("fabric-join-1."));
        assert!(line.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c)));
        assert_eq!(JoinToken::parse(&line).unwrap(), token());
        let broken = format!(" {}\n{} \n", &line[..40], &line[40..]);
        assert_eq!(JoinToken::parse(&broken).unwrap(), token());
    }

    #[test]
    fn every_changed_or_missing_letter_is_noticed() {
        let line = token().to_line();
        for at in 0..line.len() {
            let mut bytes = line.as_bytes().to_vec();
            bytes[at] = if bytes[at] == b'x' { b'y' } else { b'x' };
            assert!(JoinToken::parse(std::str::from_utf8(&bytes).unwrap()).is_err(), "changed at {at}");
            assert!(JoinToken::parse(&line[..at]).is_err(), "cut at {at}");
            assert!(JoinToken::parse(&format!("{}{}", &line[..at], &line[at + 1..])).is_err(), "without {at}");
        }
    }

    #[test]
    fn messages_say_what_is_wrong() {
        let says = |line: &str| JoinToken::parse(line).unwrap_err().to_string();
        assert_eq!(says("hello"), "this is not a join token: it does not begin with \"fabric-join\"");
        assert_eq!(says("fabric-join-2.abc.def"), "the line is of version 2; this program knows version 1");
        assert_eq!(says("fabric-join-1.abc.def"), "the line is damaged: its checksum does not match");
        assert_eq!(says("fabric-join-1.abc"), "the line is damaged: it is cut");
    }

    #[test]
    fn expiry() {
        let token = token();
        assert!(!token.is_expired(token.expires - Duration::from_secs(1)));
        assert!(token.is_expired(token.expires));
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "(fabric-join-1\\.)?\\PC{0,60}") {
            let _ = JoinToken::parse(&text);
        }
    }
}
