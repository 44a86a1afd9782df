//! What a server has counted. The limiter's clock is manual, the network is real.

use crate::support::{Server, client, limiter, units, within};
use strict_rate_limiter::{KeyedRateLimiter, Limit, RateLimiter};
use strict_rate_limiter_reqwest::{CorrectionError, Count, RateLimit};

fn limit(text: &str) -> Limit {
    text.parse().unwrap()
}

#[tokio::test]
async fn counts_of_the_server_only_ever_tighten() {
    let server = Server::start().await;
    let cases = [
        // Somebody else has used 6 of 10 units; ours are 2, of which the server knows.
        ("x-mbx-used-weight-1m", "8", 8),
        ("x-mbx-used-weight-1m", "1", 2),
        ("x-mbx-used-weight-1m", "1000", 10),
        ("x-mbx-used-weight-1m", "nonsense", 2),
        ("ratelimit-remaining", "0", 10),
        ("ratelimit-remaining", "3", 7),
        ("ratelimit-remaining", "500", 2),
        ("another", "1", 2),
    ];
    for (header, text, held) in cases {
        let (limiter, _clock) = limiter("10w/10ms");
        let middleware = RateLimit::new(limiter.clone())
            .weight(|_| 2)
            .corrected_by("X-MBX-USED-WEIGHT-1M", limit("10w/10ms"), Count::Used)
            .unwrap()
            .corrected_by("RateLimit-Remaining", limit("10w/10ms"), Count::Remaining)
            .unwrap();
        client(&middleware).get(server.says(200, &[(header, text)])).send().await.unwrap();
        assert_eq!(units(&limiter), held, "{header}: {text}");
    }
}

#[tokio::test]
async fn counts_are_read_in_the_forms_that_servers_send() {
    let server = Server::start().await;
    let cases: [(&str, &str, Count, u64); 8] = [
        ("x-ratelimit-remaining", "3.0", Count::Remaining, 37),
        ("x-shopify-shop-api-call-limit", "39/40", Count::Used, 39),
        ("x-app-rate-limit-count", "39:10,7:120", Count::Used, 39),
        ("ratelimit", "limit=40, remaining=3, reset=10", Count::Remaining, 37),
        ("ratelimit", "\"default\";r=3;t=10", Count::Remaining, 37),
        ("ratelimit", "\"day\";r=0;w=86400, \"default\";r=3;w=10", Count::Remaining, 37),
        ("ratelimit-remaining", "3;w=10", Count::Remaining, 37),
        ("ratelimit-remaining", "12, 3;window=10", Count::Remaining, 37),
    ];
    for (header, text, count, held) in cases {
        let (limiter, _clock) = limiter("40/10s");
        let middleware = RateLimit::new(limiter.clone());
        let middleware = middleware.corrected_by(header, limit("40/10s"), count).unwrap();
        client(&middleware).get(server.says(200, &[(header, text)])).send().await.unwrap();
        assert_eq!(units(&limiter), held, "{header}: {text}");
    }
}

#[tokio::test]
async fn the_limit_that_is_named_is_corrected_and_no_other() {
    let server = Server::start().await;
    let limits = [limit("40/10s"), limit("100/2m")];
    let limiter = RateLimiter::builder().limits(limits).build().unwrap();
    let header = "x-app-rate-limit-count";
    let middleware = RateLimit::new(limiter.clone());
    let middleware = middleware.corrected_by(header, limits[1], Count::Used).unwrap();
    client(&middleware).get(server.says(200, &[(header, "39:10,70:120")])).send().await.unwrap();
    let held: Vec<u64> = limiter.stats().held.iter().map(|held| held.units).collect();
    assert_eq!(held, [1, 70]);
}

#[tokio::test]
async fn what_is_still_on_its_way_comes_on_top_of_the_servers_count() {
    let server = Server::start().await;
    let (limiter, _clock) = limiter("10/10ms");
    let middleware = RateLimit::new(limiter.clone());
    let header = "ratelimit-remaining";
    let middleware = middleware.corrected_by(header, limit("10/10ms"), Count::Remaining).unwrap();
    let client = client(&middleware);
    let on_its_way = limiter.try_acquire().unwrap();
    within(client.get(server.url("ratelimit-remaining=4")).send()).await.unwrap();
    assert_eq!(units(&limiter), 7, "six that the server has counted, and one that it may not have");
    on_its_way.complete();
}

#[test]
fn nonsense_is_refused_when_the_middleware_is_made() {
    let (limiter, _clock) = limiter("1/10ms");
    let middleware = RateLimit::new(limiter);
    let error =
        middleware.clone().corrected_by("no name", limit("1/10ms"), Count::Used).unwrap_err();
    assert_eq!(error.to_string(), "`no name` is no name of a header");
    let error = middleware.corrected_by("x", limit("2/10ms"), Count::Used).unwrap_err();
    assert_eq!(error.to_string(), "no limiter here has the limit 2/10ms; there is 1/10ms");
}

#[tokio::test]
async fn a_host_without_the_limit_is_not_corrected() {
    let server = Server::start().await;
    let everyone = RateLimiter::builder().limit(limit("40/10s"));
    let own = RateLimiter::builder().limit(limit("20/10s"));
    let host = server.address.to_string();
    let hosts = KeyedRateLimiter::builder(everyone).key(host.clone(), own).build().unwrap();
    let middleware = RateLimit::per_host(hosts.clone());
    let error = middleware.clone().corrected_by("x-left", limit("1/10s"), Count::Remaining);
    assert!(matches!(error, Err(CorrectionError::UnknownLimit { .. })));
    let middleware = middleware.corrected_by("x-left", limit("40/10s"), Count::Remaining).unwrap();
    client(&middleware).get(server.url("x-left=0")).send().await.unwrap();
    assert_eq!(units(&hosts.limiter(&host)), 1);
    let middleware = middleware.corrected_by("x-left", limit("20/10s"), Count::Remaining).unwrap();
    client(&middleware).get(server.url("x-left=0")).send().await.unwrap();
    assert_eq!(units(&hosts.limiter(&host)), 20);
}
