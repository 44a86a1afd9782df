//! hyper's client behind a limiter, against a server on loopback. The completion of a call is the end of
//! its body, so that a download counts for as long as it lasts.
//!
//! `cargo run -p strict-rate-limiter --features tower --example tower`

use std::error::Error;
use std::time::Instant;

use axum::Router;
use axum::body::Body;
use axum::http::Request;
use axum::routing::get;
use http_body_util::BodyExt;
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use strict_rate_limiter::RateLimiter;
use strict_rate_limiter::tower::{RateLimitLayer, completion};
use tower::{ServiceBuilder, ServiceExt};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error + Send + Sync>> {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let routes = Router::new().route("/", get(async || "pong"));
    tokio::spawn(async move { axum::serve(listener, routes).await });

    let limiter = RateLimiter::builder().limit("10/100ms".parse()?).concurrency(2).build()?;
    let client = ServiceBuilder::new()
        .layer(RateLimitLayer::new(limiter).complete_on(completion::Body))
        .service(Client::builder(TokioExecutor::new()).build_http::<Body>());

    let start = Instant::now();
    for call in 1..=25 {
        let request = Request::get(format!("http://{address}/")).body(Body::empty())?;
        let response = client.clone().oneshot(request).await?;
        let body = response.into_body().collect().await?.to_bytes();
        println!("{:>6.0?}  call {call}: {}", start.elapsed(), String::from_utf8_lossy(&body));
    }
    Ok(())
}
