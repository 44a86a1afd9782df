//! Pauses that a server asks for. The limiter's clock is manual, the network is real.

use std::time::{Duration, SystemTime};

use crate::support::{
    NS, PER, Server, client, limiter, opens_in, own_client_without_redirects, until, within,
};
use reqwest_middleware::Error;
use strict_rate_limiter::clock::ManualClock;
use strict_rate_limiter::{KeyedRateLimiter, RateLimiter};
use strict_rate_limiter_reqwest::{Heed, Hint, PauseTooLong, RateLimit};

const HOUR: Duration = Duration::from_secs(3600);

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

type Headers = &'static [(&'static str, &'static str)];

#[tokio::test]
async fn the_limiter_pauses_for_as_long_as_the_server_says() {
    const DATE: (&str, &str) = ("date", "Sun, 06 Nov 1994 08:49:30 GMT");
    let server = Server::start().await;
    let cases: &[(u16, Headers, Duration)] = &[
        (429, &[("retry-after", "2")], ms(2_000)),
        (429, &[("retry-after", "2.0")], ms(2_000)),
        (429, &[("retry-after", "1.732")], ms(1_732)),
        (429, &[("retry-after", "Sun, 06 Nov 1994 08:49:37 GMT"), DATE], ms(8_000)),
        (429, &[("retry-after-ms", "2000")], ms(2_000)),
        (429, &[("x-ms-retry-after-ms", "2000.5")], ms(2_000) + 500_000 * NS),
        (429, &[("x-ratelimit-remaining", "0"), ("x-ratelimit-reset", "2")], ms(2_000)),
        (503, &[("retry-after", "2")], ms(2_000)),
        (418, &[("retry-after", "2")], ms(2_000)),
        (403, &[("retry-after", "2")], ms(2_000)),
        (529, &[("retry-after", "2")], ms(2_000)),
        (500, &[("retry-after", "2")], ms(2_000)),
        // Nothing said, or nothing that is understood: the limit's own period.
        (429, &[], PER),
        (503, &[("retry-after", "soon")], PER),
        // Whatever refuses nothing, or only might.
        (200, &[("retry-after", "2")], Duration::ZERO),
        (500, &[], Duration::ZERO),
        (418, &[("retry-after", "soon")], Duration::ZERO),
    ];
    for (status, headers, pause) in cases {
        let (limiter, clock) = limiter("5/10ms");
        let client = own_client_without_redirects(RateLimit::new(limiter.clone()));
        within(client.get(server.says(*status, headers)).send()).await.unwrap();
        assert_eq!(opens_in(&limiter, &clock), Some(*pause), "{status} {headers:?}");
    }
}

#[tokio::test]
async fn a_refusal_that_says_nothing_pauses_for_the_shortest_period_that_is_used_up() {
    let server = Server::start().await;
    for (queries, pause) in [(1, PER), (3, 100 * PER)] {
        let clock = ManualClock::new();
        let limits = ["5/10ms", "3/1s", "10000/1d"].map(|limit| limit.parse().unwrap());
        let builder = RateLimiter::builder().limits(limits).clock(clock.clone());
        let limiter = builder.build().unwrap();
        let client = client(&RateLimit::new(limiter.clone()));
        for _ in 1..queries {
            within(client.get(server.url("")).send()).await.unwrap();
        }
        within(client.get(server.url("status=503")).send()).await.unwrap();
        assert_eq!(limiter.paused_for(), pause, "the {queries}. is refused");
    }
}

#[tokio::test]
async fn the_statuses_that_are_heeded_can_be_named() {
    let server = Server::start().await;
    let (limiter, clock) = limiter("5/10ms");
    let middleware = RateLimit::new(limiter.clone()).heed(Heed::default().statuses([202]));
    let client = client(&middleware);
    within(client.get(server.url("status=429&retry-after=7")).send()).await.unwrap();
    assert_eq!(opens_in(&limiter, &clock), Some(Duration::ZERO));
    within(client.get(server.url("status=202&retry-after=7")).send()).await.unwrap();
    assert_eq!(opens_in(&limiter, &clock), Some(ms(7_000)));
}

#[tokio::test]
async fn the_pause_holds_before_whoever_is_next_is_granted() {
    let server = Server::start().await;
    let clock = ManualClock::new();
    let limiter = RateLimiter::builder().limit("5/10ms".parse().unwrap()).clock(clock.clone());
    let limiter = limiter.build().unwrap();
    let client = client(&RateLimit::new(limiter.clone()));
    let first = tokio::spawn(client.get(server.url("wait=&status=429")).send());
    until(|| limiter.stats().running == 1).await;
    let second = tokio::spawn(client.get(server.url("")).send());
    until(|| limiter.stats().queued == 1).await;
    server.leave.add_permits(1);
    assert_eq!(within(first).await.unwrap().unwrap().status(), 429);
    assert_eq!((limiter.stats().running, limiter.stats().queued), (0, 1));
    clock.advance(PER);
    assert_eq!(within(second).await.unwrap().unwrap().status(), 200);
}

#[tokio::test]
async fn a_request_that_was_granted_before_the_pause_and_not_sent_is_not_sent() {
    let server = Server::start().await;
    let (limiter, clock) = limiter("1/10ms");
    let client = client(&RateLimit::new(limiter.clone()));
    limiter.try_acquire().unwrap().complete();
    let mut waiting = std::pin::pin!(client.get(server.url("")).send());
    let waker = std::task::Waker::noop();
    let mut poll = || waiting.as_mut().poll(&mut std::task::Context::from_waker(waker)).is_ready();
    assert!(!poll());
    clock.advance(PER + NS);
    assert_eq!(limiter.stats().running, 1, "granted, and not yet told");
    limiter.pause_for(ms(7_000));
    assert!(!poll());
    assert_eq!((limiter.stats().running, limiter.stats().queued), (0, 1));
    assert_eq!(limiter.stats().completed, 1, "it was never on its way");
    clock.advance(ms(7_000));
    assert_eq!(within(waiting).await.unwrap().status(), 200);
    assert_eq!(server.seen().len(), 1);
}

#[tokio::test]
async fn a_hook_says_what_no_header_does() {
    let server = Server::start().await;
    let (limiter, clock) = limiter("10/10ms");
    let limit = limiter.limits()[0];
    let middleware = RateLimit::new(limiter.clone()).hook(move |response| {
        let text = |name| response.headers().get(name)?.to_str().ok();
        let hint = text("x-banned-s").and_then(|text: &str| text.parse().ok());
        let hint = Hint::new().pause(Duration::from_secs(hint.unwrap_or(0)));
        match text("x-left").and_then(|text| text.parse().ok()) {
            Some(left) => hint.remaining(limit, left).used("1/1h".parse().unwrap(), 1),
            None => hint,
        }
    });
    let client = client(&middleware);
    within(client.get(server.url("x-left=3")).send()).await.unwrap();
    assert_eq!(crate::support::units(&limiter), 7, "a limit that is not there changes nothing");
    within(client.get(server.url("status=429&retry-after=2&x-banned-s=7")).send()).await.unwrap();
    assert_eq!(opens_in(&limiter, &clock), Some(ms(7_000)));
}

fn too_long(error: &Error) -> &PauseTooLong {
    let Error::Middleware(error) = error else { panic!("{error}") };
    error.downcast_ref().unwrap_or_else(|| panic!("{error}"))
}

#[tokio::test]
async fn a_pause_that_is_too_long_is_an_error_at_once_and_is_kept() {
    let server = Server::start().await;
    let (limiter, clock) = limiter("5/10ms");
    let client = client(&RateLimit::new(limiter.clone()));
    let before = SystemTime::now();
    let response =
        within(client.get(server.url("status=429&retry-after=7201")).send()).await.unwrap();
    assert_eq!(response.status(), 429, "its caller has the answer");
    assert_eq!(response.extensions().get::<PauseTooLong>().unwrap().asked(), ms(7_201_000));
    assert_eq!(response.text().await.unwrap(), "answer");

    let error = within(client.get(server.url("")).send()).await.unwrap_err();
    let asked = too_long(&error);
    assert_eq!((asked.asked(), asked.left()), (ms(7_201_000), ms(7_201_000)));
    assert_eq!((asked.header(), asked.host()), ("retry-after", None));
    assert!(asked.until().unwrap() >= before + ms(7_201_000));
    assert!(
        error.to_string().contains("asked by `retry-after` for a pause of 7201 s, until "),
        "{error}"
    );

    clock.advance(HOUR + ms(500));
    let error = within(client.get(server.url("")).send()).await.unwrap_err();
    assert_eq!(too_long(&error).left(), HOUR + ms(500));
    clock.advance(ms(500));
    let waiting = tokio::spawn(client.get(server.url("")).send());
    until(|| limiter.stats().queued == 1).await;
    clock.advance(ms(3_599_999));
    assert_eq!((limiter.stats().queued, server.seen().len()), (1, 1), "not before its time");
    clock.advance(ms(1));
    assert_eq!(within(waiting).await.unwrap().unwrap().status(), 200);
}

#[tokio::test]
async fn a_refusal_that_says_nothing_may_be_too_long_as_well() {
    let server = Server::start().await;
    let (limiter, _clock) = limiter("100/1d");
    let client = client(&RateLimit::new(limiter.clone()));
    within(client.get(server.url("status=429")).send()).await.unwrap();
    let error = within(client.get(server.url("")).send()).await.unwrap_err();
    assert_eq!((too_long(&error).asked(), too_long(&error).header()), (24 * HOUR, "refusal"));
    let text = "refused a request and did not say for how long: a pause of 86400 s, until ";
    assert!(error.to_string().contains(text), "{error}");
}

#[tokio::test]
async fn whoever_waits_already_is_told_of_a_pause_that_is_too_long() {
    let server = Server::start().await;
    let clock = ManualClock::new();
    let limiter = RateLimiter::builder().limit("5/10ms".parse().unwrap()).clock(clock.clone());
    let limiter = limiter.build().unwrap();
    let client = client(&RateLimit::new(limiter.clone()));
    let first = tokio::spawn(client.get(server.url("wait=&status=503&retry-after=99999")).send());
    until(|| limiter.stats().running == 1).await;
    let waiting: Vec<_> = (0..3).map(|_| tokio::spawn(client.get(server.url("")).send())).collect();
    until(|| limiter.stats().queued == 3).await;
    server.leave.add_permits(1);
    assert_eq!(within(first).await.unwrap().unwrap().status(), 503);
    for waiting in waiting {
        too_long(&within(waiting).await.unwrap().unwrap_err());
    }
    assert_eq!((limiter.stats().queued, server.seen().len()), (0, 1));
}

#[tokio::test]
async fn a_pause_can_be_ended() {
    let server = Server::start().await;
    let (limiter, _clock) = limiter("9/10ms");
    let middleware = RateLimit::new(limiter.clone());
    let client = client(&middleware);
    let ends: [&dyn Fn(); 2] = [&|| middleware.resume(), &|| limiter.resume()];
    for end in ends {
        let query = "status=429&retry-after=99999999999999999999";
        within(client.get(server.url(query)).send()).await.unwrap();
        let error = within(client.get(server.url("")).send()).await.unwrap_err();
        assert_eq!(too_long(&error).asked(), Duration::MAX);
        assert!(error.to_string().contains("a pause that never ends"), "{error}");
        end();
        assert_eq!(within(client.get(server.url("")).send()).await.unwrap().status(), 200);
        // What is waited for is not refused because of a pause that was ended.
        limiter.pause_for(2 * HOUR);
        let waiting = tokio::spawn(client.get(server.url("")).send());
        until(|| limiter.stats().queued == 1).await;
        end();
        assert_eq!(within(waiting).await.unwrap().unwrap().status(), 200);
    }
}

#[tokio::test]
async fn a_pause_of_the_programs_own_is_waited_for_however_long() {
    let server = Server::start().await;
    let (limiter, clock) = limiter("5/10ms");
    let client = client(&RateLimit::new(limiter.clone()).max_pause(ms(1)));
    limiter.pause_for(48 * HOUR);
    let waiting = tokio::spawn(client.get(server.url("")).send());
    until(|| limiter.stats().queued == 1).await;
    clock.advance(48 * HOUR);
    assert_eq!(within(waiting).await.unwrap().unwrap().status(), 200);
}

#[tokio::test]
async fn a_shorter_pause_does_not_hide_one_that_is_too_long() {
    let server = Server::start().await;
    let (limiter, _clock) = limiter("5/10ms");
    let client = client(&RateLimit::new(limiter.clone()).max_pause(ms(1_000)));
    let on_its_way = tokio::spawn(client.get(server.url("wait=&status=429&retry-after=2")).send());
    until(|| limiter.stats().running == 1).await;
    within(client.get(server.url("status=429&retry-after=9")).send()).await.unwrap();
    server.leave.add_permits(1);
    within(on_its_way).await.unwrap().unwrap();
    let error = within(client.get(server.url("")).send()).await.unwrap_err();
    assert_eq!(too_long(&error).asked(), ms(9_000));
}

#[tokio::test]
async fn hosts_are_refused_and_resumed_one_by_one() {
    let (one, other) = (Server::start().await, Server::start().await);
    let settings = RateLimiter::builder().limit("5/10ms".parse().unwrap());
    let hosts = KeyedRateLimiter::new(settings.clock(ManualClock::new())).unwrap();
    let middleware = RateLimit::per_host(hosts);
    let client = client(&middleware);
    let refused = async |server: &Server| match within(client.get(server.url("")).send()).await {
        Ok(_) => false,
        Err(error) => too_long(&error).host() == Some(&server.address.to_string()),
    };
    for server in [&one, &other] {
        within(client.get(server.url("status=429&retry-after=99999")).send()).await.unwrap();
    }
    assert!(refused(&one).await && refused(&other).await);
    middleware.resume_host(&one.address.to_string());
    assert!(!refused(&one).await && refused(&other).await);
    middleware.resume();
    assert!(!refused(&one).await && !refused(&other).await);
}
