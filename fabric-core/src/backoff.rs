//! How long to wait before trying again: the type that all retries share.

use std::time::Duration;

/// Doubling waits with jitter and a ceiling. Knows no clock and no random source: both come from the caller.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Backoff {
    base: Duration,
    cap: Duration,
    attempts: u32,
}

impl Backoff {
    /// The first wait is about `base`, no wait is longer than `cap`.
    pub const fn new(base: Duration, cap: Duration) -> Self {
        Self { base, cap, attempts: 0 }
    }

    /// The next wait: between half of the doubled base and all of it. `random` is any number, uniformly chosen.
    pub fn next(&mut self, random: u64) -> Duration {
        let full = self.base.saturating_mul(1u32.checked_shl(self.attempts).unwrap_or(u32::MAX)).min(self.cap);
        self.attempts = self.attempts.saturating_add(1).min(31);
        let half = full / 2;
        // 53 bits are what a float holds exactly.
        #[expect(clippy::cast_precision_loss, reason = "53 bits fit a float")]
        let fraction = (random >> 11) as f64 / (1u64 << 53) as f64;
        half + half.mul_f64(fraction)
    }

    /// After a success: begin again with the base.
    pub const fn reset(&mut self) {
        self.attempts = 0;
    }

    /// Failures since the last success, at most 31.
    pub const fn attempts(&self) -> u32 {
        self.attempts
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_the_cap() {
        let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(1));
        let longest: Vec<u128> = (0..6).map(|_| backoff.next(u64::MAX).as_millis()).collect();
        assert_eq!(longest, [100, 200, 400, 800, 1000, 1000]);
        for _ in 0..100 {
            assert!(backoff.next(0) >= Duration::from_millis(500));
        }
        backoff.reset();
        assert_eq!(backoff.next(0), Duration::from_millis(50));
    }
}
