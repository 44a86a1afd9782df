//! Chooses the limiter of a request.

use reqwest::Url;
use strict_rate_limiter::{KeyedRateLimiter, Limit, RateLimiter};

/// One limiter for everything, or one for each host.
#[derive(Clone)]
pub(crate) enum Limiters {
    One(RateLimiter),
    PerHost(KeyedRateLimiter<String>),
}

/// The limiter of a request, and its host if there is a limiter for each.
pub(crate) struct Target {
    pub(crate) limiter: RateLimiter,
    pub(crate) host: Option<String>,
}

impl Limiters {
    pub(crate) fn of(&self, url: &Url) -> Target {
        match self {
            Self::One(limiter) => Target { limiter: limiter.clone(), host: None },
            Self::PerHost(_) => self.of_host(host(url)),
        }
    }

    /// The limiter of a host. Ignores the host if there is one limiter for all.
    pub(crate) fn of_host(&self, host: String) -> Target {
        match self {
            Self::One(limiter) => Target { limiter: limiter.clone(), host: None },
            Self::PerHost(limiters) => {
                Target { limiter: limiters.limiter(&host), host: Some(host) }
            }
        }
    }

    /// The limits of all limiters.
    pub(crate) fn limits(&self) -> Vec<Limit> {
        match self {
            Self::One(limiter) => limiter.limits(),
            Self::PerHost(limiters) => limiters.limits(),
        }
    }
}

fn host(url: &Url) -> String {
    let port = url.port_or_known_default().map_or(String::new(), |port| format!(":{port}"));
    format!("{}{port}", url.host_str().unwrap_or_default())
}
