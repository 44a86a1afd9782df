//! Tower's contract, step by step, on a manual clock.

mod support;

use std::collections::VecDeque;
use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::Response;
use http_body_util::BodyExt;
use strict_rate_limiter::clock::ManualClock;
use strict_rate_limiter::tower::{Each, RateLimitLayer, RateLimitService, Reserved, completion};
use strict_rate_limiter::{AcquireError, RateLimiter};
use support::{ByHand, MS, NS, limiter};
use tower::{Layer, Service, ServiceBuilder, ServiceExt, service_fn};
use tower_test::mock::{self, Handle};

const PER: Duration = Duration::from_millis(10);

type Mock = mock::Mock<&'static str, u64>;
type Spawned = mock::Spawn<RateLimitService<Mock, Each, Reserved, completion::Response>>;

/// A limiter of one task in 10 ms, a service behind it, and the handle that answers its calls.
fn one_in_ten_ms() -> (Spawned, Handle<&'static str, u64>, RateLimiter, ManualClock) {
    let (limiter, clock) = limiter(&["1/10ms"], |builder| builder.abandon_grace(5 * MS));
    let (service, handle) = mock::spawn_layer(RateLimitLayer::new(limiter.clone()));
    (service, handle, limiter, clock)
}

fn ready(service: &mut Spawned) -> bool {
    service.poll_ready().is_ready()
}

#[tokio::test]
async fn a_ready_service_holds_a_permit_and_the_response_completes_it() {
    let (mut service, mut handle, limiter, clock) = one_in_ten_ms();
    handle.allow(10);
    assert!(ready(&mut service) && ready(&mut service), "as often as it is asked");
    assert_eq!(limiter.stats().running, 1);
    let mut call = tokio_test::task::spawn(service.call("one"));
    clock.advance(3 * PER);
    assert!(call.poll().is_pending());
    let (_, respond) = handle.next_request().await.unwrap();
    respond.send_response(7);
    assert_eq!(call.await.unwrap(), 7);
    assert_eq!(limiter.stats().completed, 1);
    clock.advance(PER);
    assert!(!ready(&mut service), "the window counts from the response");
    clock.advance(NS);
    assert!(service.is_woken() && ready(&mut service));
}

#[tokio::test]
async fn services_and_clones_wait_in_one_queue_first_in_first_out() {
    let (mut first, mut handle, limiter, clock) = one_in_ten_ms();
    handle.allow(10);
    let (other, mut other_handle) = mock::pair::<&'static str, u64>();
    other_handle.allow(10);
    let mut second = mock::Spawn::new(RateLimitLayer::new(limiter.clone()).layer(other));
    let mut third = first.clone();
    assert!(ready(&mut first));
    assert!(!ready(&mut second) && !ready(&mut third));
    drop(first.into_inner());
    assert!(second.is_woken() && !third.is_woken());
    assert!(!ready(&mut third) && ready(&mut second));
    let call = second.call("two");
    other_handle.next_request().await.unwrap().1.send_response(1);
    call.await.unwrap();
    clock.advance(PER + NS);
    assert!(!ready(&mut second), "it is behind the third now");
    assert!(ready(&mut third));
}

#[tokio::test]
async fn a_ready_service_that_is_dropped_gives_its_permit_back() {
    let (mut service, mut handle, limiter, _clock) = one_in_ten_ms();
    handle.allow(10);
    let mut clone = service.clone();
    assert!(ready(&mut service) && !ready(&mut clone));
    drop(service);
    assert!(clone.is_woken() && ready(&mut clone), "no time has passed, and nothing was used");
    drop(clone);
    let stats = limiter.stats();
    assert_eq!((stats.running, stats.completed, stats.held[0].units), (0, 0, 0));
}

#[tokio::test]
async fn a_service_that_waits_and_is_dropped_leaves_no_trace() {
    let (mut service, mut handle, limiter, _clock) = one_in_ten_ms();
    handle.allow(10);
    let running = limiter.try_acquire().unwrap();
    assert!(!ready(&mut service));
    assert_eq!(limiter.stats().queued, 1);
    drop(service);
    assert_eq!(limiter.stats().queued, 0);
    running.complete();
}

#[tokio::test]
async fn no_permit_is_taken_while_the_inner_service_is_not_ready() {
    let (mut service, mut handle, limiter, _clock) = one_in_ten_ms();
    handle.allow(0);
    assert!(!ready(&mut service));
    assert_eq!(limiter.stats().running, 0);
    handle.allow(1);
    assert!(service.is_woken() && ready(&mut service));
}

#[tokio::test]
async fn a_call_that_fails_has_completed_and_a_cancelled_one_counts_with_its_grace() {
    let (mut service, mut handle, limiter, clock) = one_in_ten_ms();
    handle.allow(10);
    assert!(ready(&mut service));
    let call = service.call("fails");
    handle.next_request().await.unwrap().1.send_error("no");
    assert_eq!(call.await.unwrap_err().to_string(), "no");
    assert_eq!(limiter.stats().completed, 1);

    clock.advance(PER + NS);
    assert!(ready(&mut service));
    let call = service.call("cancelled");
    clock.advance(MS);
    drop(call);
    clock.advance((5 * MS).saturating_sub(NS));
    assert_eq!(limiter.stats().running, 1, "it may still be on its way");
    clock.advance(NS);
    assert_eq!((limiter.stats().running, limiter.stats().held[0].units), (0, 1));
    clock.advance(PER);
    assert!(!ready(&mut service));
    clock.advance(NS);
    assert!(ready(&mut service));
}

#[tokio::test]
async fn closing_is_an_error_of_readiness() {
    let (mut service, mut handle, limiter, _clock) = one_in_ten_ms();
    handle.allow(10);
    limiter.close();
    let Poll::Ready(Err(error)) = service.poll_ready() else { panic!("it is closed") };
    assert_eq!(error.downcast_ref(), Some(&AcquireError::Closed));
}

async fn echo(request: u64) -> Result<u64, Infallible> {
    Ok(request)
}

#[tokio::test]
async fn weights_come_from_the_request_and_from_the_response_and_calls_keep_their_order() {
    let (limiter, clock) = limiter(&["10w/10ms"], |builder| builder.concurrency(10));
    let layer = RateLimitLayer::new(limiter.clone())
        .weight(|request: &u64| *request)
        .actual_weight(|response: &u64| response / 2);
    let mut service = ServiceBuilder::new().layer(layer).service(service_fn(echo));
    assert_eq!(service.ready().await.unwrap().call(8).await.unwrap(), 8);
    assert_eq!(limiter.stats().held[0].units, 4);

    // Called in this order, polled in the other.
    let mut heavy = ByHand::new(service.ready().await.unwrap().call(7));
    let mut light = ByHand::new(service.ready().await.unwrap().call(1));
    assert!(light.poll().is_none() && heavy.poll().is_none());
    assert_eq!(limiter.stats().queued, 2);
    clock.advance(PER + NS);
    assert_eq!(light.poll().unwrap().unwrap(), 1);
    assert_eq!(heavy.poll_if_woken().unwrap().unwrap(), 7);

    let error = service.ready().await.unwrap().call(11).await.unwrap_err();
    let words = "weight 11 is over the limit 10w/10ms: it could never run";
    assert_eq!(error.to_string(), words);
    assert!(service.ready().await.unwrap().call(0).await.is_err());
}

#[tokio::test]
async fn a_weighted_call_that_is_dropped_in_the_queue_is_never_made() {
    let (limiter, _clock) = limiter(&["10w/10ms"], |builder| builder);
    let (inner, mut handle) = mock::pair::<u64, u64>();
    handle.allow(10);
    let layer = RateLimitLayer::new(limiter.clone()).weight(|request: &u64| *request);
    let mut service = layer.layer(inner);
    let running = limiter.request().weight(10).try_acquire().unwrap();
    let call = service.ready().await.unwrap().call(3);
    drop(call);
    assert_eq!(limiter.stats().queued, 0);
    drop(service);
    running.complete();
    assert!(handle.next_request().await.is_none(), "nothing was sent");
}

/// A body of some frames, which may fail. It does not know its end in advance.
struct Frames(VecDeque<Result<&'static str, &'static str>>);
impl axum::body::HttpBody for Frames {
    type Data = Bytes;
    type Error = &'static str;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<http_body::Frame<Bytes>, &'static str>>> {
        let frame = self.0.pop_front();
        Poll::Ready(frame.map(|frame| frame.map(|text| http_body::Frame::data(text.into()))))
    }
}

type Framed = Result<&'static str, &'static str>;

#[tokio::test]
async fn on_request_a_call_completes_at_the_end_of_its_body() {
    let (limiter, _clock) = limiter(&["100w/10ms"], |builder| builder.abandon_grace(5 * MS));
    let layer = RateLimitLayer::new(limiter.clone())
        .actual_weight(|response: &Response<Frames>| response.body().0.len() as u64)
        .complete_on(completion::Body);
    let answer =
        async |frames: Vec<Framed>| Ok::<_, Infallible>(Response::new(Frames(frames.into())));
    let mut service = ServiceBuilder::new().layer(layer).service(service_fn(answer));
    let running = || limiter.stats().running;

    let response = service.ready().await.unwrap().call(vec![Ok("a"), Ok("b")]).await.unwrap();
    let mut body = response.into_body();
    assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap(), "a");
    assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap(), "b");
    assert_eq!(running(), 1, "there may be more");
    assert!(body.frame().await.is_none());
    assert_eq!((running(), limiter.stats().completed), (0, 1));
    assert_eq!(limiter.stats().held[0].units, 2, "as the response said");

    let response =
        service.ready().await.unwrap().call(vec![Err("cut off"), Ok("b")]).await.unwrap();
    let mut body = response.into_body();
    assert_eq!(body.frame().await.unwrap().unwrap_err(), "cut off");
    assert_eq!((running(), limiter.stats().completed), (0, 2));

    let response = service.ready().await.unwrap().call(vec![Ok("never read")]).await.unwrap();
    drop(response);
    assert_eq!((running(), limiter.stats().completed), (1, 2), "abandoned: its grace has begun");
}

#[tokio::test]
async fn a_body_that_knows_its_end_is_not_waited_for() {
    let (limiter, _clock) = limiter(&["10/10ms"], |builder| builder);
    let layer = RateLimitLayer::new(limiter.clone()).complete_on(completion::Body);
    let answer = async |text: &'static str| Ok::<_, Infallible>(Response::new(Body::from(text)));
    let mut service = ServiceBuilder::new().layer(layer).service(service_fn(answer));

    let empty = service.ready().await.unwrap().call("").await.unwrap();
    assert_eq!(limiter.stats().completed, 1);
    drop(empty);
    let mut full = service.ready().await.unwrap().call("text").await.unwrap().into_body();
    assert_eq!(limiter.stats().completed, 1);
    full.frame().await.unwrap().unwrap();
    assert_eq!(limiter.stats().completed, 2, "nothing comes after the last frame");
}
