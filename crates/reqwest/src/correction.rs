//! Corrections by what the server says it has counted.

use http::{HeaderMap, HeaderName};
use strict_rate_limiter::RateLimiter;

/// What a header counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Count {
    /// The units that are left, as in `RateLimit-Remaining` and `X-RateLimit-Remaining`. They are taken
    /// as that many left of *this* limit's rate: where it is lower than the server's, they may leave
    /// more than the rate, which changes nothing.
    Remaining,
    /// The units that are used, as in `X-MBX-USED-WEIGHT-1M`.
    Used,
}

#[derive(Debug)]
pub(crate) struct Correction {
    pub(crate) header: HeaderName,
    pub(crate) limit: usize,
    pub(crate) count: Count,
}

impl Correction {
    /// Called while the request, of this weight, still holds its permit: its own units are in the
    /// server's count, and become completed units of ours next.
    pub(crate) fn apply(&self, limiter: &RateLimiter, weight: u64, headers: &HeaderMap) {
        let Some(count) = read(headers, &self.header) else { return };
        let limits = limiter.limits();
        let limit = limits.get(self.limit).unwrap_or_else(|| {
            panic!("limit {} of {} does not exist; they count from 0", self.limit, limits.len())
        });
        let used = match self.count {
            Count::Remaining => limit.rate().saturating_sub(count),
            Count::Used => count.min(limit.rate()),
        };
        limiter.reconcile(self.limit, used.saturating_sub(limit.units(weight)));
    }
}

/// The number in a header. Some servers say more after it (`12;w=60`, `12, 100;window=60`): the first
/// number is that of the nearest limit.
fn read(headers: &HeaderMap, name: &HeaderName) -> Option<u64> {
    let text = headers.get(name)?.to_str().ok()?;
    text.split([',', ';']).next()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_number_is_read_and_anything_else_is_nothing() {
        let name = HeaderName::from_static("x-ratelimit-remaining");
        let read = |text: &str| {
            let headers = HeaderMap::from_iter([(name.clone(), text.parse().unwrap())]);
            read(&headers, &name)
        };
        assert_eq!(read("12"), Some(12));
        assert_eq!(read(" 12;w=60"), Some(12));
        assert_eq!(read("12, 100;window=60"), Some(12));
        for nonsense in ["", "-1", "many", "1.5", "99999999999999999999"] {
            assert_eq!(read(nonsense), None, "{nonsense}");
        }
        assert_eq!(super::read(&HeaderMap::new(), &name), None);
    }
}
