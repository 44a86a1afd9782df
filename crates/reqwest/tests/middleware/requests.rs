//! A request and its permit, whatever becomes of it. The limiter's clock is manual, the network is real.

use std::time::Duration;

use crate::support::{NS, PER, Server, client, limiter, opens_in, units, until, within};
use strict_rate_limiter::clock::ManualClock;
use strict_rate_limiter::{AcquireError, KeyedRateLimiter, RateLimiter};
use strict_rate_limiter_reqwest::{Hint, RateLimit};
use tokio::net::TcpListener;

#[tokio::test]
async fn a_request_holds_its_permit_until_its_response() {
    let server = Server::start().await;
    let (limiter, clock) = limiter("1/10ms");
    let client = client(&RateLimit::new(limiter.clone()));
    let call = tokio::spawn(client.get(server.url("wait=")).send());
    until(|| limiter.stats().running == 1).await;
    clock.advance(5 * PER);
    server.leave.add_permits(1);
    assert_eq!(within(call).await.unwrap().unwrap().text().await.unwrap(), "answer");
    assert_eq!((limiter.stats().completed, units(&limiter)), (1, 1));
    assert_eq!(opens_in(&limiter, &clock), Some(PER + NS));
}

#[tokio::test]
async fn a_request_that_fails_has_completed() {
    let (limiter, _clock) = limiter("1/10ms");
    let nobody = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let answer = client(&RateLimit::new(limiter.clone())).get(format!("http://{nobody}/")).send();
    assert!(answer.await.unwrap_err().is_connect());
    assert_eq!((limiter.stats().running, limiter.stats().completed), (0, 1));
}

/// A limiter that counts a cancelled request for longer.
fn with_grace() -> (RateLimiter, ManualClock) {
    let clock = ManualClock::new();
    let builder = RateLimiter::builder().limit("1/10ms".parse().unwrap()).clock(clock.clone());
    (builder.abandon_grace(PER).build().unwrap(), clock)
}

fn assert_has_grace(limiter: &RateLimiter, clock: &ManualClock) {
    assert_eq!(limiter.stats().running, 1, "for its grace");
    clock.advance(PER);
    assert_eq!(limiter.stats().running, 0);
    assert_eq!(opens_in(limiter, clock), Some(PER + NS), "and the period from then");
}

#[tokio::test]
async fn a_request_that_times_out_may_still_be_on_its_way() {
    let server = Server::start().await;
    let (limiter, clock) = with_grace();
    let client = client(&RateLimit::new(limiter.clone()));
    let timeout = Duration::from_millis(1);
    let answer = client.get(server.url("wait=")).timeout(timeout).send().await;
    assert!(answer.unwrap_err().is_timeout());
    assert_has_grace(&limiter, &clock);
}

#[tokio::test]
async fn a_request_that_is_dropped_on_its_way_has_its_grace() {
    let server = Server::start().await;
    let (limiter, clock) = with_grace();
    let client = client(&RateLimit::new(limiter.clone()));
    let call = tokio::spawn(client.get(server.url("wait=")).send());
    until(|| server.seen().len() == 1).await;
    call.abort();
    assert!(within(call).await.unwrap_err().is_cancelled());
    assert_has_grace(&limiter, &clock);
}

#[tokio::test]
async fn a_request_that_is_dropped_while_it_waits_leaves_no_trace() {
    let server = Server::start().await;
    let (limiter, clock) = limiter("1/10ms");
    let client = client(&RateLimit::new(limiter.clone()));
    limiter.try_acquire().unwrap().complete();
    let waiting = tokio::spawn(client.get(server.url("")).send());
    until(|| limiter.stats().queued == 1).await;
    waiting.abort();
    assert!(within(waiting).await.unwrap_err().is_cancelled());
    assert_eq!((limiter.stats().queued, limiter.stats().running), (0, 0));
    clock.advance(PER + NS);
    assert_eq!(opens_in(&limiter, &clock), Some(Duration::ZERO));
    assert!(server.seen().is_empty());
}

#[tokio::test]
async fn a_weight_that_panics_takes_nothing_with_it() {
    let server = Server::start().await;
    let (limiter, _clock) = limiter("2w/10ms");
    let middleware = RateLimit::new(limiter.clone())
        .weight(|request| if request.url().path() == "/panics" { panic!("on purpose") } else { 2 });
    let client = client(&middleware);
    let url = server.url("").replace("/?", "/panics?");
    let call = tokio::spawn(client.get(url).send());
    assert!(within(call).await.unwrap_err().is_panic());
    assert_eq!((limiter.stats().running, limiter.stats().queued, units(&limiter)), (0, 0, 0));
    assert_eq!(within(client.get(server.url("")).send()).await.unwrap().status(), 200);
}

#[tokio::test]
async fn a_hook_that_panics_takes_neither_the_permit_nor_the_pause_with_it() {
    let server = Server::start().await;
    let (limiter, clock) = limiter("5/10ms");
    let middleware = RateLimit::new(limiter.clone()).hook(|response| {
        assert!(response.status().is_success(), "on purpose");
        Hint::new()
    });
    let client = client(&middleware);
    let call = tokio::spawn(client.get(server.url("status=429&retry-after=7")).send());
    assert!(within(call).await.unwrap_err().is_panic());
    assert_eq!((limiter.stats().running, limiter.stats().completed), (0, 1));
    assert_eq!(opens_in(&limiter, &clock), Some(Duration::from_secs(7)));
    clock.advance(Duration::from_secs(8));
    assert_eq!(within(client.get(server.url("")).send()).await.unwrap().status(), 200);
}

#[tokio::test]
async fn hosts_do_not_limit_each_other() {
    let (one, other) = (Server::start().await, Server::start().await);
    let clock = ManualClock::new();
    let settings = RateLimiter::builder().limit("1/10ms".parse().unwrap()).clock(clock.clone());
    let hosts = KeyedRateLimiter::new(settings).unwrap();
    let client = client(&RateLimit::per_host(hosts.clone()));
    within(client.get(one.url("status=429&retry-after=60")).send()).await.unwrap();
    within(client.get(other.url("")).send()).await.unwrap();
    let opens_in = |server: &Server| opens_in(&hosts.limiter(&server.address.to_string()), &clock);
    assert_eq!(opens_in(&one), Some(Duration::from_secs(60)));
    assert_eq!(opens_in(&other), Some(PER + NS));
}

#[tokio::test]
async fn a_limiter_that_refuses_is_an_error_of_the_request() {
    let server = Server::start().await;
    let (limiter, _clock) = limiter("10w/10ms");
    let heavy = client(&RateLimit::new(limiter.clone()).weight(|_| 11));
    let error = within(heavy.get(server.url("")).send()).await.unwrap_err();
    assert!(error.to_string().contains("weight 11 is over the limit"), "{error}");
    limiter.close();
    let error = client(&RateLimit::new(limiter)).get(server.url("")).send().await.unwrap_err();
    let reqwest_middleware::Error::Middleware(error) = error else { panic!("{error}") };
    assert_eq!(error.downcast_ref(), Some(&AcquireError::Closed));
}

#[test]
fn a_middleware_can_be_shared_and_looked_at() {
    fn is_shared<T: Send + Sync + Clone + 'static>(_: &T) {}
    let (limiter, _clock) = limiter("1/10ms");
    let middleware = RateLimit::new(limiter);
    is_shared(&middleware);
    let shown = format!("{middleware:?}");
    assert!(shown.contains("1/10ms"), "{shown}");
}
