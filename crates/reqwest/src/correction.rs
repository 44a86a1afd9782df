//! Corrects limits with the counts of the server.

use http::HeaderName;
use strict_rate_limiter::{Limit, RateLimiter};
use strict_rate_limiter_hints::{Answer, Count, used_before};

/// Why a limit cannot be corrected.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CorrectionError {
    /// The text is not a valid header name.
    #[error("`{0}` is no name of a header")]
    HeaderName(String),
    /// No limiter of the middleware has this limit.
    #[error("no limiter here has the limit {limit}; there {are} {known}",
        are = if .known.len() == 1 { "is" } else { "are" },
        known = .known.iter().map(Limit::to_string).collect::<Vec<_>>().join(", "))]
    UnknownLimit {
        /// The limit to correct.
        limit: Limit,
        /// The existing limits.
        known: Vec<Limit>,
    },
}

/// A header that reports the units of a limit.
#[derive(Debug, Clone)]
pub(crate) struct Correction {
    header: HeaderName,
    limit: Limit,
    count: Count,
}

impl Correction {
    pub(crate) fn new(
        header: &str,
        limit: Limit,
        count: Count,
        known: Vec<Limit>,
    ) -> Result<Self, CorrectionError> {
        let name = header.parse();
        let name = name.map_err(|_| CorrectionError::HeaderName(header.to_owned()))?;
        if known.contains(&limit) {
            Ok(Self { header: name, limit, count })
        } else {
            Err(CorrectionError::UnknownLimit { limit, known })
        }
    }

    /// Called while the request, of this weight, still holds its permit.
    pub(crate) fn apply(&self, limiter: &RateLimiter, weight: u64, answer: &Answer<'_>) {
        let (limit, own) = (self.limit, self.limit.units(weight));
        let header = self.header.as_str();
        if let Some(used) = answer.used_before(header, self.count, limit.rate(), limit.per(), own) {
            _ = limiter.reconcile(limit, used);
        }
    }
}

/// Tells the limiter that the server has counted `used` units, including those of this request, which complete next.
/// Does nothing if the limiter does not have the limit.
pub(crate) fn correct(limiter: &RateLimiter, limit: Limit, weight: u64, used: u64) {
    _ = limiter.reconcile(limit, used_before(used, limit.rate(), limit.units(weight)));
}
