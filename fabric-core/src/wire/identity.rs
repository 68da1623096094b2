//! Identities: the value is not JSON but labels, `source:key=value;` each (`wire.md` 2.2).

use super::DecodeError;
use crate::labels::LabelSet;

/// Writes the labels.
pub fn encode(labels: &LabelSet) -> Vec<u8> {
    labels.to_wire().into_bytes()
}

/// Reads the labels.
///
/// # Errors
/// When the value is empty, too long or holds no labels.
pub fn decode(value: &[u8]) -> Result<LabelSet, DecodeError> {
    Ok(LabelSet::from_wire(value)?)
}
