//! Completion at the end of the body. The limiter's clock is manual, the network is real.

use std::time::Duration;

use crate::support::{NS, PER, Server, client, limiter, opens_in, until, within};
use strict_rate_limiter::RateLimiter;
use strict_rate_limiter::clock::ManualClock;
use strict_rate_limiter_reqwest::{Completion, PauseTooLong, RateLimit};

fn to_the_end(limiter: &RateLimiter) -> RateLimit {
    RateLimit::new(limiter.clone()).complete_on(Completion::Body)
}

#[tokio::test]
async fn the_permit_is_held_until_the_body_has_been_read_to_its_end() {
    let server = Server::start().await;
    let (limiter, clock) = limiter("1/10ms");
    let client = client(&to_the_end(&limiter));
    let body = server.body();
    let mut response = within(client.get(server.url("then=")).send()).await.unwrap();
    body.send(Ok("one")).unwrap();
    assert_eq!(response.chunk().await.unwrap().unwrap(), "one");
    clock.advance(5 * PER);
    assert_eq!((limiter.stats().running, limiter.stats().completed), (1, 0));
    body.send(Ok(" two")).unwrap();
    drop(body);
    assert_eq!(response.text().await.unwrap(), " two");
    assert_eq!((limiter.stats().running, limiter.stats().completed), (0, 1));
    assert_eq!(opens_in(&limiter, &clock), Some(PER + NS));
}

#[tokio::test]
async fn downloads_are_one_at_a_time_where_the_limiter_is() {
    let server = Server::start().await;
    let limiter = RateLimiter::builder().limit("9/10ms".parse().unwrap()).clock(ManualClock::new());
    let limiter = limiter.build().unwrap();
    let client = client(&to_the_end(&limiter));
    let body = server.body();
    let first = within(client.get(server.url("then=")).send()).await.unwrap();
    let second = tokio::spawn(client.get(server.url("")).send());
    until(|| limiter.stats().queued == 1).await;
    assert_eq!(server.seen().len(), 1);
    drop(body);
    first.bytes().await.unwrap();
    assert_eq!(within(second).await.unwrap().unwrap().status(), 200);
}

#[tokio::test]
async fn a_body_that_is_dropped_before_its_end_has_its_grace() {
    let server = Server::start().await;
    let clock = ManualClock::new();
    let builder = RateLimiter::builder().limit("1/10ms".parse().unwrap()).clock(clock.clone());
    let limiter = builder.abandon_grace(PER).build().unwrap();
    let _body = server.body();
    let client = client(&to_the_end(&limiter));
    drop(within(client.get(server.url("then=")).send()).await.unwrap());
    assert_eq!(limiter.stats().running, 1, "for its grace");
    clock.advance(PER);
    assert_eq!((limiter.stats().running, opens_in(&limiter, &clock)), (0, Some(PER + NS)));
}

#[tokio::test]
async fn a_body_that_fails_has_completed() {
    let server = Server::start().await;
    let (limiter, _clock) = limiter("1/10ms");
    let body = server.body();
    let client = client(&to_the_end(&limiter));
    let response = within(client.get(server.url("then=")).send()).await.unwrap();
    assert_eq!(limiter.stats().running, 1);
    body.send(Err(std::io::Error::other("on purpose"))).unwrap();
    assert!(response.text().await.is_err());
    assert_eq!((limiter.stats().running, limiter.stats().completed), (0, 1));
}

#[tokio::test]
async fn an_empty_body_has_ended_with_its_head() {
    let server = Server::start().await;
    let (limiter, _clock) = limiter("1/10ms");
    let client = client(&to_the_end(&limiter));
    let response = within(client.head(server.url("")).send()).await.unwrap();
    assert_eq!((limiter.stats().running, limiter.stats().completed), (0, 1));
    drop(response);
}

#[tokio::test]
async fn the_response_is_otherwise_the_same() {
    let server = Server::start().await;
    let (limiter, _clock) = limiter("1/10ms");
    let client = client(&to_the_end(&limiter));
    let url = server.says(429, &[("x-header", "kept"), ("retry-after", "99999")]);
    let response = within(client.get(url.clone()).send()).await.unwrap();
    assert_eq!((response.status().as_u16(), response.url()), (429, &url));
    assert_eq!(response.headers()["x-header"], "kept");
    assert_eq!(response.content_length(), Some(6));
    assert_eq!(response.remote_addr(), Some(server.address));
    assert!(response.extensions().get::<PauseTooLong>().is_some());
    assert_eq!(limiter.paused_for(), Duration::from_secs(99_999), "before the body has come");
    assert_eq!(response.text().await.unwrap(), "answer");
}

#[tokio::test]
async fn a_redirect_gives_its_permit_back_before_the_next_is_asked_for() {
    let server = Server::start().await;
    let limiter = RateLimiter::builder().limit("9/10ms".parse().unwrap()).clock(ManualClock::new());
    let limiter = limiter.build().unwrap();
    let client = client(&to_the_end(&limiter));
    let url = server.says(302, &[("location", "/next")]);
    let response = within(client.get(url).send()).await.unwrap();
    assert_eq!((response.url().path(), limiter.stats().running), ("/next", 1));
    response.bytes().await.unwrap();
    assert_eq!((limiter.stats().running, limiter.stats().completed), (0, 2));
}
