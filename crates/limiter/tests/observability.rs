//! The numbers and spans of each event, on a manual clock.

mod support;

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use strict_rate_limiter::{Pushed, RateLimiter};
use support::{ByHand, MS, NS, limiter, settle};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Instrument, Metadata, Subscriber};
use tracing_core::span::Current;

/// All numbers, as a Prometheus server reads them.
fn read(handle: &PrometheusHandle) -> BTreeMap<String, String> {
    let text = handle.render();
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    let values = lines.filter_map(|line| {
        let (name, value) = line.rsplit_once(' ')?;
        let name = name.trim_start_matches("rate_limiter_").replace('"', "");
        Some((name, value.to_string()))
    });
    values.collect()
}

fn recorded(test: impl FnOnce(&PrometheusHandle)) {
    let recorder = PrometheusBuilder::new().build_recorder();
    metrics::with_local_recorder(&recorder, || test(&recorder.handle()));
}

#[test]
fn the_numbers_follow_tasks_from_the_queue_to_their_ends() {
    recorded(|handle| {
        let (limiter, clock) = limiter(&["100w/10ms"], |builder| builder.name("api"));
        let first = limiter.request().weight(80).try_acquire().unwrap();
        let mut second = ByHand::waiting(limiter.request().weight(60).acquire());
        let third = ByHand::waiting(limiter.request().weight(10).acquire());
        let now = read(handle);
        assert_eq!(now["running{limiter=api}"], "1");
        assert_eq!(now["queued{limiter=api}"], "2");
        assert_eq!(now["held_units{limiter=api,limit=100w/10ms}"], "80");
        assert_eq!(now["utilisation_ratio{limiter=api,limit=100w/10ms}"], "0.8");

        drop(third);
        clock.advance(4 * MS);
        _ = first.complete_with(95);
        let now = read(handle);
        assert_eq!((&*now["running{limiter=api}"], &*now["queued{limiter=api}"]), ("0", "1"));
        assert_eq!(now["completed_total{limiter=api}"], "1");
        assert_eq!(now["overspent_units_total{limiter=api}"], "15");
        assert_eq!(now["task_seconds_sum{limiter=api}"], "0.004");
        assert_eq!(now["held_units{limiter=api,limit=100w/10ms}"], "95");

        clock.advance(10 * MS + NS);
        let second = second.poll_if_woken().unwrap().unwrap();
        let now = read(handle);
        assert_eq!(now["wait_seconds_sum{limiter=api}"], "0.014000001");
        assert_eq!((&*now["running{limiter=api}"], &*now["queued{limiter=api}"]), ("1", "0"));

        second.release_unused();
        drop(limiter.try_acquire().unwrap());
        let now = read(handle);
        assert_eq!(now["running{limiter=api}"], "0");
        assert_eq!(now["completed_total{limiter=api}"], "1", "nothing more than before");
        assert_eq!(now["abandoned_total{limiter=api}"], "1");
    });
}

#[test]
fn expired_units_leave_the_gauges_when_these_are_published() {
    recorded(|handle| {
        let (limiter, clock) = limiter(&["2/10ms"], |builder| builder);
        assert_eq!(limiter.name(), "2/10ms");
        limiter.try_acquire().unwrap().complete();
        clock.advance(10 * MS + NS);
        assert_eq!(
            read(handle)["held_units{limiter=2/10ms,limit=2/10ms}"],
            "1",
            "no look was made"
        );
        limiter.publish_gauges();
        assert_eq!(read(handle)["held_units{limiter=2/10ms,limit=2/10ms}"], "0");
    });
}

/// Records which spans begin and end, and their fields.
#[derive(Clone, Default)]
struct Spans(Arc<Mutex<Seen>>);

#[derive(Default)]
struct Seen {
    said: Vec<String>,
    /// All spans; a span's number is its position, from 1.
    spans: Vec<&'static Metadata<'static>>,
    entered: Vec<u64>,
}

struct Fields(String);

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        write!(self.0, " {}={value:?}", field.name()).unwrap();
    }
}

impl Spans {
    fn take(&self) -> Vec<String> {
        self.0.lock().unwrap().said.drain(..).collect()
    }

    fn say(&self, what: String) {
        self.0.lock().unwrap().said.push(what);
    }
}

impl Subscriber for Spans {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn new_span(&self, span: &Attributes<'_>) -> Id {
        let mut fields = Fields(String::new());
        span.record(&mut fields);
        let mut seen = self.0.lock().unwrap();
        let within = span.parent().map(Id::into_u64);
        let within = within.or(seen.entered.last().copied().filter(|_| span.is_contextual()));
        let within = within.map_or(String::new(), |id| format!(" in {id}"));
        seen.spans.push(span.metadata());
        let number = seen.spans.len() as u64;
        seen.said.push(format!("{number}: {}{within}{}", span.metadata().name(), fields.0));
        Id::from_u64(number)
    }

    fn record(&self, span: &Id, values: &Record<'_>) {
        let mut fields = Fields(String::new());
        values.record(&mut fields);
        self.say(format!("{}:{}", span.into_u64(), fields.0));
    }

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        let mut fields = Fields(String::new());
        event.record(&mut fields);
        self.say(format!("event{}", fields.0));
    }

    fn current_span(&self) -> Current {
        let seen = self.0.lock().unwrap();
        let current = seen.entered.last().map(|id| (*id, seen.spans[*id as usize - 1]));
        current.map_or_else(Current::none, |(id, what)| Current::new(Id::from_u64(id), what))
    }

    fn enter(&self, span: &Id) {
        self.0.lock().unwrap().entered.push(span.into_u64());
        self.say(format!("enter {}", span.into_u64()));
    }

    fn exit(&self, span: &Id) {
        self.0.lock().unwrap().entered.pop();
        self.say(format!("exit {}", span.into_u64()));
    }

    fn try_close(&self, span: Id) -> bool {
        self.say(format!("close {}", span.into_u64()));
        true
    }
}

#[test]
fn a_waiter_has_a_span_and_then_its_task_has_one() {
    let spans = Spans::default();
    tracing::subscriber::with_default(spans.clone(), || {
        let (limiter, clock) = limiter(&["100w/10ms"], |builder| builder.name("api"));
        let first = limiter.request().weight(90).try_acquire().unwrap();
        assert_eq!(spans.take(), ["1: running limiter=api weight=90"]);
        let mut second = ByHand::waiting(limiter.request().weight(20).acquire());
        second.poll();
        assert_eq!(spans.take(), ["2: queued limiter=api weight=20"], "once");
        _ = first.complete_with(95);
        assert_eq!(spans.take(), ["1: overspent=5", "1: end=\"completed\"", "close 1"]);
        clock.advance(10 * MS + NS);
        assert!(second.is_woken());
        let second = second.poll().unwrap().unwrap();
        assert_eq!(spans.take(), ["close 2", "3: running limiter=api weight=20"]);
        drop(second);
        assert_eq!(spans.take(), ["3: end=\"abandoned\"", "close 3"]);
    });
}

#[test]
fn a_tasks_events_are_inside_its_span() {
    let spans = Spans::default();
    tracing::subscriber::with_default(spans.clone(), || {
        let (limiter, _clock) = limiter(&["1/10ms"], |builder| builder.name("api"));
        let mut run = ByHand::new(limiter.run(async { tracing::info!(said = 1) }));
        run.poll().unwrap().unwrap();
        let all = spans.take();
        let at = |what: &str| all.iter().position(|said| said == what).expect(what);
        let event = at("event said=1");
        let entered = all[..event].iter().filter(|said| *said == "enter 1").count();
        let left = all[..event].iter().filter(|said| *said == "exit 1").count();
        assert_eq!(entered, left + 1, "{all:?}");
        assert!(at("close 1") > event);
    });
}

#[tokio::test]
async fn a_queued_task_runs_inside_the_span_that_it_was_pushed_in() {
    let spans = Spans::default();
    let _default = tracing::subscriber::set_default(spans.clone());
    let (limiter, clock) = limiter(&["1/10ms"], |builder| builder.name("api"));
    limiter.try_acquire().unwrap().release_unused();
    let first = limiter.try_acquire().unwrap();
    let request = tracing::info_span!("request");
    let pushed = limiter.push(|| async {}).instrument(request).await.unwrap();
    first.complete();
    clock.advance(10 * MS + NS);
    settle().await;
    assert!(matches!(pushed, Pushed::Queued(task) if task.is_finished()));
    let all = spans.take();
    assert!(all.contains(&"3: request".into()), "{all:?}");
    assert!(all.contains(&"4: queued in 3 limiter=api weight=1".into()), "{all:?}");
    assert!(all.contains(&"5: running in 3 limiter=api weight=1".into()), "{all:?}");
}

#[test]
fn spans_and_numbers_have_the_limiters_name() {
    let named = RateLimiter::builder().limit("10/1s".parse().unwrap()).name("api").build().unwrap();
    assert!(format!("{named:?}").contains("name: \"api\""));
    let unnamed = RateLimiter::new(10, Duration::from_secs(1)).unwrap();
    assert_eq!(unnamed.name(), "10/1s");
}
