//! A server on loopback that answers as it is told to, and limiters whose clock moves only when it is
//! told to. The network is real; nothing depends on how fast it is.

#![allow(dead_code, reason = "each test file uses some of it")]

use std::collections::HashMap;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes, to_bytes};
use axum::extract::{Query, Request, State};
use axum::http::{HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use reqwest::redirect::Policy;
use reqwest_middleware::{ClientBuilder, ClientWithMiddleware};
use strict_rate_limiter::clock::ManualClock;
use strict_rate_limiter::{RateLimiter, TryAcquireError};
use strict_rate_limiter_reqwest::RateLimit;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinHandle;

pub(crate) const PER: Duration = Duration::from_millis(10);
pub(crate) const NS: Duration = Duration::from_nanos(1);

/// Answers with the status and the headers that the query asks for: `wait` for leave to, `then` with a body
/// that comes piece by piece.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    pub(crate) leave: Arc<Semaphore>,
    shared: Arc<Shared>,
    task: JoinHandle<()>,
}

pub(crate) struct Shared {
    leave: Arc<Semaphore>,
    seen: Mutex<Vec<String>>,
    body: Mutex<Option<Chunks>>,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// What comes of a body, and whether it fails in the end.
type Chunk = Result<&'static str, std::io::Error>;

struct Chunks(mpsc::UnboundedReceiver<Chunk>);

impl http_body::Body for Chunks {
    type Data = Bytes;
    type Error = std::io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<http_body::Frame<Bytes>, std::io::Error>>> {
        let chunk = self.0.poll_recv(context);
        chunk.map(|chunk| chunk.map(|chunk| chunk.map(|text| http_body::Frame::data(text.into()))))
    }
}

async fn answer(
    State(shared): State<Arc<Shared>>,
    Query(query): Query<HashMap<String, String>>,
    request: Request,
) -> Response {
    let (parts, body) = request.into_parts();
    let body = to_bytes(body, 1000).await.unwrap();
    let body = String::from_utf8(body.to_vec()).unwrap();
    shared.seen.lock().unwrap().push(format!("{} {} {body}", parts.method, parts.uri.path()));
    let mut response = "answer".into_response();
    if query.contains_key("then") {
        let chunks = shared.body.lock().unwrap().take().unwrap();
        *response.body_mut() = Body::new(chunks);
        response.headers_mut().remove("content-length");
    }
    for (name, value) in query {
        match &*name {
            "status" => *response.status_mut() = StatusCode::from_bytes(value.as_bytes()).unwrap(),
            "wait" => shared.leave.acquire().await.unwrap().forget(),
            "then" => {}
            _ => {
                let name = HeaderName::from_bytes(name.as_bytes()).unwrap();
                response.headers_mut().insert(name, HeaderValue::from_str(&value).unwrap());
            }
        }
    }
    response
}

impl Server {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let leave = Arc::new(Semaphore::new(0));
        let shared =
            Shared { leave: Arc::clone(&leave), seen: Mutex::default(), body: Mutex::default() };
        let shared = Arc::new(shared);
        let routes = Router::new().fallback(answer).with_state(Arc::clone(&shared));
        let task = tokio::spawn(async move { axum::serve(listener, routes).await.unwrap() });
        Self { address, leave, shared, task }
    }

    pub(crate) fn url(&self, query: &str) -> String {
        format!("http://{}/?{query}", self.address)
    }

    /// The same for a status and headers of any text.
    pub(crate) fn says(&self, status: u16, headers: &[(&str, &str)]) -> reqwest::Url {
        let status = status.to_string();
        let query = [("status", &*status)].into_iter().chain(headers.iter().copied());
        reqwest::Url::parse_with_params(&self.url(""), query).unwrap()
    }

    /// Every request so far: its method, its path and its body.
    pub(crate) fn seen(&self) -> Vec<String> {
        self.shared.seen.lock().unwrap().clone()
    }

    /// The body of the next answer that comes piece by piece.
    pub(crate) fn body(&self) -> mpsc::UnboundedSender<Chunk> {
        let (sender, receiver) = mpsc::unbounded_channel();
        *self.shared.body.lock().unwrap() = Some(Chunks(receiver));
        sender
    }
}

pub(crate) fn limiter(limit: &str) -> (RateLimiter, ManualClock) {
    let clock = ManualClock::new();
    let builder = RateLimiter::builder().limit(limit.parse().unwrap()).clock(clock.clone());
    (builder.concurrency(4).build().unwrap(), clock)
}

/// As the documentation says to build it.
pub(crate) fn client(middleware: &RateLimit) -> ClientWithMiddleware {
    middleware.client(reqwest::Client::builder().no_proxy()).unwrap()
}

/// A client that somebody built, and that follows redirects by itself.
pub(crate) fn own_client(middleware: RateLimit) -> ClientWithMiddleware {
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    ClientBuilder::new(client).with(middleware).build()
}

/// A client that somebody built, and that follows nothing.
pub(crate) fn own_client_without_redirects(middleware: RateLimit) -> ClientWithMiddleware {
    let client = reqwest::Client::builder().redirect(Policy::none()).no_proxy().build().unwrap();
    ClientBuilder::new(client).with(middleware).build()
}

pub(crate) fn units(limiter: &RateLimiter) -> u64 {
    limiter.stats().held[0].units
}

/// When the next permit is to be had, from now.
pub(crate) fn opens_in(limiter: &RateLimiter, clock: &ManualClock) -> Option<Duration> {
    match limiter.try_acquire() {
        Err(TryAcquireError::Busy { not_before }) => not_before.map(|at| at - clock.now()),
        Ok(permit) => {
            permit.release_unused();
            Some(Duration::ZERO)
        }
        Err(error) => panic!("{error}"),
    }
}

/// Lets the other tasks of this thread run until it is so. What is not so after a minute never will be.
pub(crate) async fn until(mut is_so: impl FnMut() -> bool) {
    let so = async {
        while !is_so() {
            tokio::task::yield_now().await;
        }
    };
    within(so).await;
}

/// What a future gives. What has not come after a minute never will.
pub(crate) async fn within<T>(future: impl IntoFuture<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(60), future).await.expect("it never comes to that")
}
