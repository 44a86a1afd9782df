//! What a limiter does, as a Prometheus server scrapes it. Everything stays on this machine: the
//! exporter listens on loopback, and the example scrapes it once.
//!
//! `cargo run -p strict-rate-limiter --features metrics --example metrics`

use std::error::Error;
use std::time::Duration;

use metrics_exporter_prometheus::PrometheusBuilder;
use strict_rate_limiter::RateLimiter;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    // A free port; a real program has one of its own.
    let address = TcpListener::bind("127.0.0.1:0").await?.local_addr()?;
    // Before any limiter is made, so that nothing goes uncounted.
    PrometheusBuilder::new().with_http_listener(address).install()?;

    let limiter = RateLimiter::builder()
        .limit("20/200ms".parse()?)
        .limit("90w/1s".parse()?)
        .name("api")
        .build()?;

    // What is held expires without anything happening: the gauges follow once a second.
    let observed = limiter.clone();
    tokio::spawn(async move {
        loop {
            observed.publish_gauges();
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    });

    for call in 0..30 {
        let permit = limiter.request().weight(3).acquire().await?;
        tokio::time::sleep(Duration::from_millis(2)).await; // The call.
        // Every tenth used more than it had reserved.
        _ = permit.complete_with(if call % 10 == 0 { 5 } else { 2 });
    }
    println!("{}", scrape(address).await?);
    Ok(())
}

/// What the Prometheus server does every few seconds.
async fn scrape(address: std::net::SocketAddr) -> Result<String, Box<dyn Error>> {
    let mut connection = TcpStream::connect(address).await?;
    let request = "GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    connection.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    connection.read_to_string(&mut answer).await?;
    let (head, body) = answer.split_once("\r\n\r\n").ok_or("no answer")?;
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    Ok(body.into())
}
