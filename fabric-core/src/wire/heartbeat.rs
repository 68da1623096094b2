//! Values that are a time: heartbeat and canaries. Readers look at their existence alone (`wire.md` 1.1).

use std::time::{Duration, SystemTime};

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// How often the heartbeat is written.
pub const INTERVAL: Duration = Duration::from_mins(1);
/// Readers reconnect when it is older.
pub const READER_LIMIT: Duration = Duration::from_mins(2);

/// RFC 3339 in UTC, as Go's `time.RFC3339`: `2026-01-02T15:04:05Z`.
pub fn encode(now: SystemTime) -> Vec<u8> {
    rfc3339(now).into_bytes()
}

/// The text form, whole seconds. A time before 1970 or after 9999 becomes 1970.
pub fn rfc3339(time: SystemTime) -> String {
    let seconds = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
    let seconds = i64::try_from(seconds).unwrap_or_default();
    let time = OffsetDateTime::from_unix_timestamp(seconds).unwrap_or(OffsetDateTime::UNIX_EPOCH);
    time.format(&Rfc3339).unwrap_or_default()
}

/// Reads RFC 3339; `None` when it is none or lies before 1970.
pub fn parse_rfc3339(text: &str) -> Option<SystemTime> {
    if text.len() > 64 {
        return None;
    }
    let time = OffsetDateTime::parse(text, &Rfc3339).ok()?;
    let seconds = u64::try_from(time.unix_timestamp()).ok()?;
    SystemTime::UNIX_EPOCH.checked_add(Duration::new(seconds, time.nanosecond()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_go_both_ways() {
        let time = SystemTime::UNIX_EPOCH + Duration::from_secs(1_767_366_245);
        assert_eq!(encode(time), b"2026-01-02T15:04:05Z");
        assert_eq!(parse_rfc3339("2026-01-02T15:04:05Z"), Some(time));
        assert_eq!(parse_rfc3339("2026-01-02T17:04:05+02:00"), Some(time));
        assert_eq!(rfc3339(time + Duration::from_millis(999)), "2026-01-02T15:04:05Z");
        for bad in ["", "now", "1969-01-01T00:00:00Z", "2026-13-01T00:00:00Z"] {
            assert_eq!(parse_rfc3339(bad), None, "{bad}");
        }
    }
}
