//! Streams whose items come with permits, on a manual clock.

mod support;

use std::time::Duration;

use futures_util::stream::{self, FusedStream, Stream, StreamExt};
use strict_rate_limiter::AcquireError;
use strict_rate_limiter::stream::RateLimitStreamExt;
use support::{ByHand, NS, limiter};

const PER: Duration = Duration::from_millis(10);

#[test]
fn an_item_is_worked_on_until_its_permit_ends() {
    let (limiter, clock) = limiter(&["1/10ms"], |builder| builder);
    let mut items = stream::iter(["a", "b", "c"]).rate_limited(&limiter);
    let first = ByHand::new(items.next()).poll().unwrap().unwrap().unwrap();
    assert_eq!(*first, "a");
    clock.advance(5 * PER);
    assert!(ByHand::new(items.next()).poll().is_none(), "the first is still worked on");
    assert_eq!(first.complete(), "a");
    clock.advance(PER);
    assert!(ByHand::new(items.next()).poll().is_none(), "the window counts from its completion");
    clock.advance(NS);
    let second = ByHand::new(items.next()).poll().unwrap().unwrap().unwrap();
    let (item, permit) = second.into_parts();
    assert_eq!((item, limiter.stats().running), ("b", 1));
    drop(permit);
    assert_eq!(limiter.stats().completed, 2);
}

#[test]
fn a_next_that_is_dropped_loses_neither_the_item_nor_its_position() {
    let (limiter, clock) = limiter(&["1/10ms"], |builder| builder);
    let mut items = stream::iter([1, 2]).rate_limited(&limiter);
    let running = limiter.try_acquire().unwrap();
    assert_eq!(items.size_hint(), (2, Some(2)));
    assert!(ByHand::new(items.next()).poll().is_none());
    assert_eq!(items.size_hint(), (2, Some(2)), "one in the queue, one to come");
    let mut behind = ByHand::waiting(limiter.acquire());
    running.complete();
    clock.advance(PER + NS);
    assert!(behind.poll().is_none(), "the item came first");
    assert_eq!(ByHand::new(items.next()).poll().unwrap().unwrap().unwrap().complete(), 1);

    assert!(ByHand::new(items.next()).poll().is_none());
    assert_eq!(limiter.stats().queued, 1 + usize::from(behind.poll().is_none()));
    let (mut rest, waiting) = items.into_parts();
    assert_eq!(waiting, Some(2));
    assert!(ByHand::new(rest.next()).poll().unwrap().is_none());
    drop(behind);
    assert_eq!(limiter.stats().queued, 0, "no trace is left");
}

#[test]
fn no_permit_is_held_while_the_inner_stream_is_slow() {
    let (limiter, _clock) = limiter(&["1/10ms"], |builder| builder);
    let mut items = stream::pending::<u8>().rate_limited(&limiter);
    assert!(ByHand::new(items.next()).poll().is_none());
    assert_eq!((limiter.stats().running, limiter.stats().queued), (0, 0));
}

#[test]
fn an_item_that_gets_no_permit_comes_back_in_the_error() {
    let (limiter, _clock) = limiter(&["10w/10ms"], |builder| builder);
    let items = stream::iter(["eleven bytes", "four", ""]);
    let mut items = items.rate_limited_by(&limiter, |item| item.len() as u64).fuse();
    let mut next = || ByHand::new(items.next()).poll().unwrap();
    let refused = next().unwrap().unwrap_err();
    assert_eq!(refused.item, "eleven bytes");
    let words = "the item has no permit: weight 12 is over the limit 10w/10ms: it could never run";
    assert_eq!(refused.to_string(), words);
    assert_eq!(next().unwrap().unwrap().complete_with(3), "four");
    assert_eq!(limiter.stats().held[0].units, 3);
    limiter.close();
    let refused = next().unwrap().unwrap_err();
    assert!(matches!(refused.reason, AcquireError::Weight(_)), "the empty item weighs nothing");
    assert!(next().is_none());
}

#[test]
fn it_ends_when_the_inner_stream_and_its_last_item_have_ended() {
    let (limiter, _clock) = limiter(&["1/10ms"], |builder| builder);
    let mut items = stream::iter([1]).fuse().rate_limited(&limiter);
    let running = limiter.try_acquire().unwrap();
    assert!(ByHand::new(items.next()).poll().is_none() && !items.is_terminated());
    running.release_unused();
    let item = ByHand::new(items.next()).poll().unwrap().unwrap().unwrap();
    item.complete();
    assert!(ByHand::new(items.next()).poll().unwrap().is_none() && items.is_terminated());
}
