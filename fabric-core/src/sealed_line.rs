//! One line of text that carries a JSON object and notices when it was cut or changed on its way.
//!
//! `PREFIX-VERSION.PAYLOAD.CHECKSUM`, payload base64url, checksum the first six characters of the base64url of SHA-256 over
//! what stands before it. The checksum finds accidents; it is no protection against forgery (the secret inside is).

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Serialize;
use serde::de::DeserializeOwned;
use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

/// Longest line read, bytes.
const MAX_BYTES: usize = 8 * 1024;
const CHECKSUM_LETTERS: usize = 6;
/// The only version there is.
const VERSION: u32 = 1;

/// A line that cannot be read. None of these repeats the line: it holds a secret.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LineError {
    /// Another kind of line, or none.
    #[error("this is not {expected}: it does not begin with {prefix:?}")]
    WrongKind {
        /// What was asked for, with its article.
        expected: &'static str,
        /// What it begins with.
        prefix: &'static str,
    },
    /// Made by a newer version.
    #[error("the line is of version {0}; this program knows version 1")]
    NewerVersion(u32),
    /// Cut or changed on its way.
    #[error("the line is damaged: {0}")]
    Damaged(&'static str),
    /// A part has no meaning.
    #[error("the line's {field} cannot be read: {reason}")]
    Field {
        /// Which part.
        field: &'static str,
        /// What is wrong with it.
        reason: String,
    },
}

/// Packs the object.
pub(crate) fn seal(prefix: &str, object: &impl Serialize) -> Zeroizing<String> {
    // The objects hold text and numbers alone, so this cannot fail.
    let json = Zeroizing::new(serde_json::to_vec(object).unwrap_or_default());
    let payload = Zeroizing::new(URL_SAFE_NO_PAD.encode(&*json));
    let body = Zeroizing::new(format!("{prefix}-{VERSION}.{}", *payload));
    Zeroizing::new(format!("{}.{}", *body, checksum(&body)))
}

/// Unpacks the object. White space around the line, and inside it where a terminal broke it, is skipped.
pub(crate) fn open<T: DeserializeOwned>(
    expected: &'static str,
    prefix: &'static str,
    line: &str,
) -> Result<T, LineError> {
    if line.len() > MAX_BYTES {
        return Err(LineError::Damaged("it is too long"));
    }
    let line: Zeroizing<String> = Zeroizing::new(line.chars().filter(|c| !c.is_whitespace()).collect());
    let rest = line.strip_prefix(prefix).and_then(|rest| rest.strip_prefix('-'));
    let rest = rest.ok_or(LineError::WrongKind { expected, prefix })?;
    let (version, rest) = rest.split_once('.').ok_or(LineError::Damaged("it is cut"))?;
    let version: u32 = version.parse().map_err(|_| LineError::Damaged("it has no version"))?;
    if version != VERSION {
        return Err(LineError::NewerVersion(version));
    }
    let (payload, sum) = rest.split_once('.').ok_or(LineError::Damaged("it is cut"))?;
    let body = line.get(..line.len().saturating_sub(sum.len() + 1)).unwrap_or_default();
    if checksum(body) != sum {
        return Err(LineError::Damaged("its checksum does not match"));
    }
    let json = URL_SAFE_NO_PAD.decode(payload).map_err(|_| LineError::Damaged("it is not base64url"))?;
    let json = Zeroizing::new(json);
    // The reason of a JSON error could repeat a piece of the content.
    let mut reader = serde_json::Deserializer::from_slice(&json);
    T::deserialize(&mut reader).map_err(|_| LineError::Damaged("its content is not as expected"))
}

fn checksum(body: &str) -> String {
    URL_SAFE_NO_PAD.encode(Sha256::digest(body)).chars().take(CHECKSUM_LETTERS).collect()
}
