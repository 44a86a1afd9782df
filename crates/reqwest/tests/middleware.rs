//! The middleware against a server on loopback that answers as it is told to. The limiter's clock moves
//! only when it is told to; the network is real.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{Query, State};
use axum::http::{HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use reqwest::redirect::Policy;
use reqwest_middleware::{ClientBuilder, ClientWithMiddleware};
use strict_rate_limiter::clock::ManualClock;
use strict_rate_limiter::{AcquireError, KeyedRateLimiter, RateLimiter, TryAcquireError};
use strict_rate_limiter_reqwest::{Count, RateLimit};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;

const PER: Duration = Duration::from_millis(10);
const NS: Duration = Duration::from_nanos(1);

/// Answers with the status and the headers that the query asks for; `wait` for leave to.
struct Server {
    address: SocketAddr,
    leave: Arc<Semaphore>,
    task: JoinHandle<()>,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn answer(
    State(leave): State<Arc<Semaphore>>,
    Query(query): Query<HashMap<String, String>>,
) -> Response {
    let mut response = "answer".into_response();
    for (name, value) in query {
        match &*name {
            "status" => *response.status_mut() = StatusCode::from_bytes(value.as_bytes()).unwrap(),
            "wait" => leave.acquire().await.unwrap().forget(),
            _ => {
                let name = HeaderName::from_bytes(name.as_bytes()).unwrap();
                response.headers_mut().insert(name, HeaderValue::from_str(&value).unwrap());
            }
        }
    }
    response
}

impl Server {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let leave = Arc::new(Semaphore::new(0));
        let routes = Router::new().fallback(answer).with_state(Arc::clone(&leave));
        let task = tokio::spawn(async move { axum::serve(listener, routes).await.unwrap() });
        Self { address, leave, task }
    }

    fn url(&self, query: &str) -> String {
        format!("http://{}/?{query}", self.address)
    }
}

fn limiter(limit: &str) -> (RateLimiter, ManualClock) {
    let clock = ManualClock::new();
    let builder = RateLimiter::builder().limit(limit.parse().unwrap()).clock(clock.clone());
    (builder.concurrency(4).build().unwrap(), clock)
}

fn client(middleware: RateLimit) -> ClientWithMiddleware {
    let client = reqwest::Client::builder().redirect(Policy::none()).no_proxy().build().unwrap();
    ClientBuilder::new(client).with(middleware).build()
}

fn units(limiter: &RateLimiter) -> u64 {
    limiter.stats().held[0].units
}

/// When the next permit is to be had, from now.
fn opens_in(limiter: &RateLimiter, clock: &ManualClock) -> Option<Duration> {
    use strict_rate_limiter::clock::Clock;
    match limiter.try_acquire() {
        Err(TryAcquireError::Busy { not_before }) => not_before.map(|at| at - clock.now()),
        _ => Some(Duration::ZERO),
    }
}

#[tokio::test]
async fn a_request_holds_its_permit_until_its_response() {
    let server = Server::start().await;
    let (limiter, clock) = limiter("1/10ms");
    let client = client(RateLimit::new(limiter.clone()));
    let call = tokio::spawn(client.get(server.url("wait=")).send());
    while limiter.stats().running == 0 {
        tokio::task::yield_now().await;
    }
    clock.advance(5 * PER);
    server.leave.add_permits(1);
    assert_eq!(call.await.unwrap().unwrap().text().await.unwrap(), "answer");
    assert_eq!((limiter.stats().completed, units(&limiter)), (1, 1));
    assert_eq!(opens_in(&limiter, &clock), Some(PER + NS));
}

#[tokio::test]
async fn a_request_that_fails_has_completed() {
    let (limiter, _clock) = limiter("1/10ms");
    let nobody = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let answer = client(RateLimit::new(limiter.clone())).get(format!("http://{nobody}/")).send();
    assert!(answer.await.unwrap_err().is_connect());
    assert_eq!((limiter.stats().running, limiter.stats().completed), (0, 1));
}

#[tokio::test]
async fn too_many_requests_pauses_for_as_long_as_the_server_says() {
    let server = Server::start().await;
    let cases = [
        ("status=429&retry-after=7", Duration::from_secs(7)),
        ("status=503&retry-after=7", Duration::from_secs(7)),
        // Nothing said, or nothing that can be understood: the limit's own period.
        ("status=429", PER),
        ("status=503&retry-after=soon", PER),
        ("status=200&retry-after=7", Duration::ZERO),
        ("status=500", Duration::ZERO),
    ];
    for (query, pause) in cases {
        let (limiter, clock) = limiter("5/10ms");
        let client = client(RateLimit::new(limiter.clone()));
        client.get(server.url(query)).send().await.unwrap();
        assert_eq!(opens_in(&limiter, &clock), Some(pause), "{query}");
    }
}

#[tokio::test]
async fn the_pause_holds_before_whoever_is_next_is_granted() {
    let server = Server::start().await;
    let clock = ManualClock::new();
    let limiter = RateLimiter::builder().limit("5/10ms".parse().unwrap()).clock(clock.clone());
    let limiter = limiter.build().unwrap();
    let client = client(RateLimit::new(limiter.clone()));
    let first = tokio::spawn(client.get(server.url("wait=&status=429")).send());
    while limiter.stats().running == 0 {
        tokio::task::yield_now().await;
    }
    let second = tokio::spawn(client.get(server.url("")).send());
    while limiter.stats().queued == 0 {
        tokio::task::yield_now().await;
    }
    server.leave.add_permits(1);
    assert_eq!(first.await.unwrap().unwrap().status(), 429);
    assert_eq!((limiter.stats().running, limiter.stats().queued), (0, 1));
    clock.advance(PER);
    assert_eq!(second.await.unwrap().unwrap().status(), 200);
}

#[tokio::test]
async fn counts_of_the_server_only_ever_tighten() {
    let server = Server::start().await;
    let cases = [
        // Somebody else has used 6 of 10 units; ours are 2, of which the server knows.
        ("x-mbx-used-weight-1m=8", 8),
        ("x-mbx-used-weight-1m=1", 2),
        ("x-mbx-used-weight-1m=1000", 10),
        ("x-mbx-used-weight-1m=nonsense", 2),
        ("ratelimit-remaining=0", 10),
        ("ratelimit-remaining=3", 7),
        ("ratelimit-remaining=500", 2),
        ("ratelimit-remaining=3&x-mbx-used-weight-1m=9", 9),
        ("another=1", 2),
    ];
    for (query, held) in cases {
        let (limiter, _clock) = limiter("10w/10ms");
        let middleware = RateLimit::new(limiter.clone())
            .weight(|_| 2)
            .corrected_by("X-MBX-USED-WEIGHT-1M", 0, Count::Used)
            .unwrap()
            .corrected_by("RateLimit-Remaining", 0, Count::Remaining)
            .unwrap();
        client(middleware).get(server.url(query)).send().await.unwrap();
        assert_eq!(units(&limiter), held, "{query}");
    }
}

#[tokio::test]
async fn what_is_still_on_its_way_comes_on_top_of_the_servers_count() {
    let server = Server::start().await;
    let (limiter, _clock) = limiter("10/10ms");
    let middleware = RateLimit::new(limiter.clone());
    let middleware = middleware.corrected_by("ratelimit-remaining", 0, Count::Remaining).unwrap();
    let client = client(middleware);
    let on_its_way = limiter.try_acquire().unwrap();
    client.get(server.url("ratelimit-remaining=4")).send().await.unwrap();
    assert_eq!(units(&limiter), 7, "six that the server has counted, and one that it may not have");
    on_its_way.complete();
}

#[tokio::test]
async fn hosts_do_not_limit_each_other() {
    let (one, other) = (Server::start().await, Server::start().await);
    let clock = ManualClock::new();
    let settings = RateLimiter::builder().limit("1/10ms".parse().unwrap()).clock(clock.clone());
    let hosts = KeyedRateLimiter::new(settings).unwrap();
    let client = client(RateLimit::per_host(hosts.clone()));
    client.get(one.url("status=429&retry-after=60")).send().await.unwrap();
    client.get(other.url("")).send().await.unwrap();
    let opens_in = |server: &Server| opens_in(&hosts.limiter(&server.address.to_string()), &clock);
    assert_eq!(opens_in(&one), Some(Duration::from_secs(60)));
    assert_eq!(opens_in(&other), Some(PER + NS));
}

#[tokio::test]
async fn a_limiter_that_refuses_is_an_error_of_the_request() {
    let server = Server::start().await;
    let (limiter, _clock) = limiter("10w/10ms");
    let heavy = client(RateLimit::new(limiter.clone()).weight(|_| 11));
    let error = heavy.get(server.url("")).send().await.unwrap_err();
    assert!(error.to_string().contains("weight 11 is over the limit"), "{error}");
    limiter.close();
    let error = client(RateLimit::new(limiter)).get(server.url("")).send().await.unwrap_err();
    let reqwest_middleware::Error::Middleware(error) = error else { panic!("{error}") };
    assert_eq!(error.downcast_ref(), Some(&AcquireError::Closed));
}

#[test]
fn nonsense_is_refused_when_the_middleware_is_made() {
    let (limiter, _clock) = limiter("1/10ms");
    assert!(RateLimit::new(limiter.clone()).corrected_by("no name", 0, Count::Used).is_err());
    let make = AssertUnwindSafe(|| RateLimit::new(limiter).corrected_by("x", 1, Count::Used));
    assert!(catch_unwind(make).is_err());
}
