//! The layer under hyper's client and tonic's, against real servers on loopback, in real time. The
//! server records when each call came and when it answered; however it counts, no window overflows.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Body;
use axum::http::Request;
use axum::middleware::Next;
use axum::routing::get;
use http_body_util::BodyExt;
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use strict_rate_limiter::tower::{RateLimitLayer, completion};
use strict_rate_limiter::{AcquireError, Limit, RateLimiter};
use strict_rate_limiter_core::{Record, audit};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tonic::service::Routes;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;
use tonic_health::server::health_reporter;
use tower::{Service, ServiceBuilder, ServiceExt};

const LIMIT: &str = "5/50ms";

/// The calls that the server saw, each from its arrival to its answer.
#[derive(Clone)]
struct Seen {
    since: Instant,
    calls: Arc<Mutex<Vec<Record>>>,
}

impl Seen {
    fn new() -> Self {
        Self { since: Instant::now(), calls: Arc::default() }
    }

    fn now(&self) -> u64 {
        u64::try_from(self.since.elapsed().as_nanos()).unwrap()
    }

    fn add(&self, start: u64) {
        self.calls.lock().unwrap().push(Record { start, end: self.now(), weight: 1 });
    }

    /// Counted when they came, when they were answered, or at any moment in between.
    fn assert_kept(&self, calls: usize) {
        let limit: Limit = LIMIT.parse().unwrap();
        let seen = self.calls.lock().unwrap();
        assert_eq!(seen.len(), calls);
        let audit = audit::check(&limit, &seen).unwrap();
        assert!(audit.is_clean(), "{audit:?}");
    }
}

/// Serves until it is dropped.
struct Server {
    address: SocketAddr,
    task: JoinHandle<()>,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(routes: Router) -> Server {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let task = tokio::spawn(async move { axum::serve(listener, routes).await.unwrap() });
    Server { address, task }
}

fn limiter() -> RateLimiter {
    RateLimiter::builder().limit(LIMIT.parse().unwrap()).concurrency(3).build().unwrap()
}

#[tokio::test]
async fn hypers_client_keeps_the_limit_of_an_axum_server() {
    let seen = Seen::new();
    let noted = seen.clone();
    let answer = async move || {
        let start = noted.now();
        tokio::time::sleep(Duration::from_millis(fastrand::u64(0..4))).await;
        noted.add(start);
        "pong"
    };
    let server = serve(Router::new().route("/", get(answer))).await;

    let client = Client::builder(TokioExecutor::new()).build_http::<Body>();
    let layer = RateLimitLayer::new(limiter()).complete_on(completion::Body);
    let service = ServiceBuilder::new().layer(layer).service(client);
    let calls = (0..23).map(|_| {
        let (service, address) = (service.clone(), server.address);
        tokio::spawn(async move {
            let request = Request::get(format!("http://{address}/")).body(Body::empty()).unwrap();
            let response = service.oneshot(request).await.unwrap();
            response.into_body().collect().await.unwrap().to_bytes()
        })
    });
    for call in calls.collect::<Vec<_>>() {
        assert_eq!(call.await.unwrap(), "pong");
    }
    seen.assert_kept(23);
}

#[tokio::test]
async fn tonics_client_keeps_the_limit_of_a_tonic_server() {
    let seen = Seen::new();
    let (_reporter, health) = health_reporter();
    let noted = seen.clone();
    let noting = axum::middleware::from_fn(move |request: Request<Body>, next: Next| {
        let noted = noted.clone();
        async move {
            let start = noted.now();
            let response = next.run(request).await;
            noted.add(start);
            response
        }
    });
    let server = serve(Routes::new(health).into_axum_router().layer(noting)).await;

    let channel = tonic::transport::Endpoint::new(format!("http://{}", server.address)).unwrap();
    let layer = RateLimitLayer::new(limiter()).complete_on(completion::Body);
    let channel = ServiceBuilder::new().layer(layer).service(channel.connect().await.unwrap());
    let mut client = HealthClient::new(channel);
    for _ in 0..23 {
        let status = client.check(HealthCheckRequest::default()).await.unwrap();
        assert_eq!(status.into_inner().status, 1, "serving");
    }
    seen.assert_kept(23);
}

/// Under tower's `load_shed` and without it: a full limiter answers an error at once.
#[tokio::test]
async fn a_full_limiter_answers_an_error_at_once() {
    let builder = RateLimiter::builder().limit("1/1h".parse().unwrap());
    let limiter = builder.queue_capacity(0).refuse_when_full().build().unwrap();
    let plain = ServiceBuilder::new()
        .layer(RateLimitLayer::new(limiter.clone()))
        .service_fn(async |()| Ok::<_, std::convert::Infallible>(()));
    let shed = ServiceBuilder::new()
        .load_shed()
        .layer(RateLimitLayer::new(limiter.clone()))
        .service_fn(async |()| Ok::<_, std::convert::Infallible>(()));
    let weighed = ServiceBuilder::new()
        .layer(RateLimitLayer::new(limiter.clone()).weight(|()| 1))
        .service_fn(async |()| Ok::<_, std::convert::Infallible>(()));
    plain.clone().oneshot(()).await.expect("there is room for one");
    for _ in 0..3 {
        let refusals = [
            plain.clone().oneshot(()).await.unwrap_err(),
            shed.clone().oneshot(()).await.unwrap_err(),
            weighed.clone().oneshot(()).await.unwrap_err(),
        ];
        for refusal in refusals {
            assert_eq!(refusal.downcast_ref::<AcquireError>(), Some(&AcquireError::Full));
        }
    }
    // A service can be used after a refusal.
    let mut service = plain.clone();
    for _ in 0..2 {
        assert!(service.ready().await.expect("it can be called").call(()).await.is_err());
    }
    assert_eq!(limiter.stats().queued, 0);
}

/// As a balancer does that keeps services ready.
#[tokio::test]
async fn a_service_that_was_refused_looks_again_when_it_is_called() {
    let clock = strict_rate_limiter::clock::ManualClock::new();
    let builder = RateLimiter::builder().limit("1/10ms".parse().unwrap()).clock(clock.clone());
    let limiter = builder.queue_capacity(0).refuse_when_full().build().unwrap();
    let mut service = ServiceBuilder::new()
        .layer(RateLimitLayer::new(limiter.clone()))
        .service_fn(async |()| Ok::<_, std::convert::Infallible>(()));
    service.ready().await.unwrap().call(()).await.expect("there is room");
    service.ready().await.expect("it can be called");
    clock.advance(std::time::Duration::from_millis(11));
    service.ready().await.expect("it can be called").call(()).await.expect("there is room again");
    assert_eq!(limiter.stats().completed, 2);
}

/// The contract by hand: one service, made ready and called over and over.
#[tokio::test]
async fn one_service_may_be_called_over_and_over() {
    let seen = Seen::new();
    let noted = seen.clone();
    let mut service =
        ServiceBuilder::new().layer(RateLimitLayer::new(limiter())).service_fn(async |()| {
            let start = noted.now();
            noted.add(start);
            Ok::<_, std::convert::Infallible>(())
        });
    for _ in 0..23 {
        service.ready().await.unwrap().call(()).await.unwrap();
    }
    seen.assert_kept(23);
}
