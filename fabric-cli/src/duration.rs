//! Lengths of time as people write them: `15m`, `1h`, `90s`, `2d`.

use std::str::FromStr;
use std::time::Duration;

use crate::failure::Failure;

/// A length of time on the command line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span(pub Duration);

impl Span {
    /// Whole seconds, as the API takes them.
    ///
    /// # Errors
    /// When it is longer than the API can say.
    pub fn seconds(self) -> Result<u32, Failure> {
        u32::try_from(self.0.as_secs()).map_err(|_| Failure::usage("that is longer than 136 years"))
    }
}

impl FromStr for Span {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let at = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
        let (number, unit) = text.split_at(at);
        let number: u64 =
            number.parse().map_err(|_| format!("{text:?} is no length of time; write 90s, 15m, 1h or 2d"))?;
        let factor = match unit {
            "s" | "" => 1,
            "m" => 60,
            "h" => 3600,
            "d" => 86_400,
            _ => return Err(format!("unit {unit:?} is not known; write 90s, 15m, 1h or 2d")),
        };
        let seconds =
            number.checked_mul(factor).filter(|s| *s > 0).ok_or("must be longer than nothing and shorter than ages")?;
        Ok(Self(Duration::from_secs(seconds)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units() {
        for (text, seconds) in [("90s", 90), ("90", 90), ("15m", 900), ("1h", 3600), ("2d", 172_800)] {
            assert_eq!(text.parse::<Span>().unwrap().0.as_secs(), seconds);
        }
    }

    #[test]
    fn nonsense_is_refused() {
        for text in ["", "h", "1w", "-1h", "0s", "1.5h", "99999999999999999999d", "9999999999999999999d"] {
            assert!(text.parse::<Span>().is_err(), "{text}");
        }
    }
}
