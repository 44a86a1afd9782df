//! One request on the wire, one permit: redirects, and what reqwest sends by itself. The limiter's clock
//! is manual, the network is real.

use std::io::{Read, Write};
use std::net::TcpListener;

use crate::support::{NS, PER, Server, client, limiter, own_client, units, until, within};
use reqwest::{Method, StatusCode};
use reqwest_middleware::{ClientBuilder, ClientWithMiddleware, Error};
use strict_rate_limiter::RateLimiter;
use strict_rate_limiter_reqwest::{RateLimit, UncountedRequests};

/// The clients by which the same has to hold.
fn clients(limiter: &RateLimiter) -> [ClientWithMiddleware; 2] {
    let middleware = RateLimit::new(limiter.clone());
    [client(&middleware), own_client(middleware)]
}

#[tokio::test]
async fn each_redirect_waits_for_a_permit_of_its_own() {
    let server = Server::start().await;
    for which in 0..2 {
        let (limiter, clock) = limiter("1/10ms");
        let client = clients(&limiter)[which].clone();
        let seen = server.seen().len();
        let url = server.says(302, &[("location", "/second")]);
        let call = tokio::spawn(client.get(url).send());
        until(|| limiter.stats().queued == 1).await;
        assert_eq!(server.seen().len() - seen, 1, "the second has no permit yet");
        clock.advance(PER + NS);
        let response = within(call).await.unwrap().unwrap();
        assert_eq!((response.status().as_u16(), response.url().path()), (200, "/second"));
        assert_eq!((limiter.stats().completed, server.seen().len() - seen), (2, 2));
    }
}

#[tokio::test]
async fn methods_and_bodies_are_redirected_as_reqwest_does() {
    let cases = [
        (301, Method::POST, "GET /next "),
        (302, Method::POST, "GET /next "),
        (303, Method::POST, "GET /next "),
        (303, Method::PUT, "GET /next "),
        (303, Method::HEAD, "HEAD /next "),
        (301, Method::PUT, "PUT /next body"),
        (302, Method::GET, "GET /next body"),
        (307, Method::POST, "POST /next body"),
        (308, Method::POST, "POST /next body"),
    ];
    let server = Server::start().await;
    for (status, method, next) in cases {
        let url = server.says(status, &[("location", "next")]);
        let (limiter, _clock) = limiter("9/10ms");
        let ours = client(&RateLimit::new(limiter.clone()));
        let plain = reqwest::Client::builder().no_proxy().build().unwrap();
        let plain = ClientBuilder::new(plain).build();
        for client in [ours, plain] {
            let request = client.request(method.clone(), url.clone()).body("body");
            let response = request.header("x-kept", "1").send().await.unwrap();
            assert_eq!(response.status(), 200);
            assert_eq!(server.seen().last().unwrap(), next, "{status} {method}");
        }
        assert_eq!(limiter.stats().completed, 2);
    }
}

#[tokio::test]
async fn what_is_not_followed_is_the_callers_response() {
    let (server, other) = (Server::start().await, Server::start().await);
    let elsewhere = other.url("");
    let same_with_password = server.url("").replace("//", "//user:secret@");
    let cases: [(u16, &[(&str, &str)]); 6] = [
        (302, &[("location", &elsewhere)]),
        (302, &[("location", &same_with_password)]),
        (302, &[("location", "https://127.0.0.1:1/")]),
        (302, &[("location", "/later"), ("retry-after", "7")]),
        (302, &[]),
        (304, &[("location", "/next")]),
    ];
    for (status, headers) in cases {
        let (limiter, _clock) = limiter("9/10ms");
        for client in clients(&limiter) {
            let seen = server.seen().len();
            let response = within(client.get(server.says(status, headers)).send()).await.unwrap();
            assert_eq!(response.status().as_u16(), status, "{headers:?}");
            assert_eq!(server.seen().len() - seen, 1);
        }
        assert_eq!(limiter.stats().completed, 2);
    }
    assert!(other.seen().is_empty());
}

#[tokio::test]
async fn a_loop_ends_with_the_last_redirect_that_is_allowed() {
    let server = Server::start().await;
    let (limiter, _clock) = limiter("30/10ms");
    for (most, sent) in [(10, 11), (1, 2), (0, 1)] {
        let client = client(&RateLimit::new(limiter.clone()).redirects(most));
        let looping = server.says(302, &[("location", "")]);
        let seen = server.seen().len();
        assert_eq!(within(client.get(looping).send()).await.unwrap().status(), 302);
        assert_eq!(server.seen().len() - seen, sent);
    }
}

#[tokio::test]
async fn dropped_while_a_redirect_waits_it_has_sent_one() {
    let server = Server::start().await;
    let (limiter, _clock) = limiter("1/10ms");
    let client = client(&RateLimit::new(limiter.clone()));
    let call = tokio::spawn(client.get(server.says(302, &[("location", "/next")])).send());
    until(|| limiter.stats().queued == 1).await;
    call.abort();
    assert!(within(call).await.unwrap_err().is_cancelled());
    assert_eq!((limiter.stats().running, limiter.stats().queued), (0, 0));
    assert_eq!((limiter.stats().completed, server.seen().len()), (1, 1));
}

#[tokio::test]
async fn what_a_client_of_ones_own_follows_by_itself_is_counted_and_an_error() {
    let server = Server::start().await;
    let (limiter, _clock) = limiter("20/10ms");
    let client = own_client(RateLimit::new(limiter.clone()));
    let error =
        within(client.post(server.says(303, &[("location", "/done")])).send()).await.unwrap_err();
    let Error::Middleware(error) = error else { panic!("{error}") };
    let error: &UncountedRequests = error.downcast_ref().unwrap();
    assert_eq!(error.url().path(), "/done");
    assert!(error.to_string().contains("RateLimit::client"), "{error}");
    assert_eq!((server.seen().len(), limiter.stats().running), (2, 0));
    assert!(units(&limiter) >= 11, "{}: as many as reqwest may have sent", units(&limiter));
}

#[tokio::test]
async fn an_address_that_is_written_oddly_is_no_redirect() {
    let server = Server::start().await;
    let (limiter, _clock) = limiter("20/10ms");
    let client = own_client(RateLimit::new(limiter));
    let plain = server.url("");
    for odd in ["/p?", "/p?#part", "/p#part", "/a b?x=ä&y={}|'", "//double/../p", "", "?a=b?c=/"] {
        let url = plain.replace("/?", odd);
        assert_eq!(within(client.get(&url).send()).await.unwrap().status(), 200, "{url}");
        let with_password = url.replace("//1", "//user:secret@1").parse().unwrap();
        let request = reqwest::Request::new(Method::GET, with_password);
        assert_eq!(client.execute(request).await.unwrap().status(), 200, "{url}");
    }
}

#[tokio::test]
async fn a_loop_that_a_client_of_ones_own_follows_by_itself_is_counted() {
    let server = Server::start().await;
    let (limiter, _clock) = limiter("20/10ms");
    let client = own_client(RateLimit::new(limiter.clone()));
    let error =
        within(client.post(server.says(303, &[("location", "")])).send()).await.unwrap_err();
    assert!(error.is_redirect(), "{error}");
    assert_eq!(server.seen().len(), 11);
    assert!(units(&limiter) >= 11, "{}", units(&limiter));
}

#[tokio::test]
async fn reqwest_tries_nothing_again_by_itself() {
    let server = Server::start().await;
    let again = || {
        let again = reqwest::retry::for_host("127.0.0.1").no_budget();
        let again = again.classify_fn(|answer| match answer.status() {
            Some(StatusCode::SERVICE_UNAVAILABLE) => answer.retryable(),
            _ => answer.success(),
        });
        reqwest::Client::builder().no_proxy().retry(again)
    };
    let plain = again().build().unwrap();
    within(plain.get(server.url("status=503")).send()).await.unwrap();
    assert_eq!(server.seen().len(), 3, "this is what it does where nothing keeps it from it");
    let (limiter, _clock) = limiter("9/10ms");
    // Not to wait for the pause that it asks for.
    let middleware = RateLimit::new(limiter.clone());
    let middleware = middleware.heed(strict_rate_limiter_reqwest::Heed::default().statuses([]));
    let clients = [
        middleware.client(again()).unwrap(),
        ClientBuilder::new(again().build().unwrap()).with(middleware).build(),
    ];
    for client in clients {
        for body in ["", "body"] {
            let seen = server.seen().len();
            let request = client.post(server.url("status=503")).body(body);
            assert_eq!(request.send().await.unwrap().status(), 503);
            assert_eq!(server.seen().len() - seen, 1, "{body:?}");
        }
    }
    assert_eq!(limiter.stats().completed, 4);
}

/// The bytes of a request, as they come.
fn sent_to(listener: &TcpListener) -> String {
    let (mut stream, _) = listener.accept().unwrap();
    let mut sent = vec![];
    let mut piece = [0; 1000];
    let is_whole = |sent: &[u8]| {
        let text = String::from_utf8_lossy(sent);
        text.ends_with("\r\n\r\n") && !text.contains("content-length: 4") || text.ends_with("body")
    };
    while !is_whole(&sent) {
        let length = stream.read(&mut piece).unwrap();
        sent.extend(&piece[..length]);
    }
    let answer = "HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
    stream.write_all(answer.as_bytes()).unwrap();
    String::from_utf8(sent).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_sent_is_the_same_byte_for_byte() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/path?query", listener.local_addr().unwrap());
    let (limiter, _clock) = limiter("30/10ms");
    let middleware = RateLimit::new(limiter);
    let plain = reqwest::Client::builder().no_proxy().build().unwrap();
    let plain = ClientBuilder::new(plain).build();
    for method in [Method::GET, Method::HEAD, Method::POST, Method::PUT, Method::DELETE] {
        for body in [None, Some(""), Some("body")] {
            let mut all = vec![];
            for client in [plain.clone(), client(&middleware), own_client(middleware.clone())] {
                let mut request = client.request(method.clone(), &url);
                if let Some(body) = body {
                    request = request.body(body);
                }
                let call = tokio::spawn(request.send());
                all.push(tokio::task::block_in_place(|| sent_to(&listener)));
                within(call).await.unwrap().unwrap();
            }
            assert!(all.iter().all(|sent| *sent == all[0]), "{method} {body:?}: {all:#?}");
        }
    }
}
