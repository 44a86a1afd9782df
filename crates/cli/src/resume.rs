//! Going on where an earlier run ended: what is still to be run, and how much of the limits may be used up.
//!
//! Of the tasks with a row the log says all that has to be known. Of those that ran when a run was killed it says
//! nothing but that there were `-j` of them at most. Under limits of tasks that is enough. Under limits of weight
//! it takes their weights: the killed run took its items in order, so what it was at is among the first that are
//! still to be run. Until those have been read, each counts as the heaviest that the limits allow.

use std::collections::VecDeque;
use std::time::Duration;

use strict_rate_limiter::{Limit, Permit, RateLimiter, RateLimiterBuilder, Unit};
use tokio::sync::mpsc;

use crate::error::Error;
use crate::history::History;
use crate::items::{InputEvent, Item};
use crate::log::Log;
use crate::template::{Template, UnresolvedTemplate};

/// How many items are read ahead at most to learn what may have been running.
const LOOK_AHEAD_MAX: usize = 10_000;

/// What is still to be run: read from the input, less what an earlier run has done.
pub(crate) struct ItemSource {
    items: mpsc::Receiver<InputEvent>,
    ahead: VecDeque<InputEvent>,
    pub(crate) skipped: u64,
}

impl ItemSource {
    pub(crate) fn new(items: mpsc::Receiver<InputEvent>) -> Self {
        Self { items, ahead: VecDeque::new(), skipped: 0 }
    }

    /// The command for the input, once it is known what columns it has.
    pub(crate) async fn template(&mut self, draft: &UnresolvedTemplate) -> Result<Template, Error> {
        if !draft.has_columns() {
            return draft.template(None).map_err(Error::Usage);
        }
        while let Some(found) = self.items.recv().await {
            match found {
                InputEvent::Columns(columns) => {
                    return draft.template(Some(&columns)).map_err(Error::Usage);
                }
                InputEvent::Stop(error) => return Err(error),
                other => self.ahead.push_back(other),
            }
        }
        Ok(Template::default()) // There is no item to fill in.
    }

    pub(crate) async fn next(&mut self, history: &mut History) -> Option<InputEvent> {
        if let Some(found) = self.ahead.pop_front() {
            return Some(found);
        }
        self.receive(history).await
    }

    /// How many items have been read, and not been asked for.
    pub(crate) fn known(&mut self) -> u64 {
        let is_item = |found: &InputEvent| matches!(found, InputEvent::Item(_));
        let mut known = self.ahead.iter().filter(|found| is_item(found)).count() as u64;
        while let Ok(found) = self.items.try_recv() {
            known += u64::from(is_item(&found));
        }
        known
    }

    async fn receive(&mut self, history: &mut History) -> Option<InputEvent> {
        loop {
            let found = self.items.recv().await?;
            match &found {
                InputEvent::Item(item) if history.take_done(&item.text) => self.skipped += 1,
                _ => return Some(found),
            }
        }
    }
}

/// What it takes to know how much of the limits an earlier run may have used.
pub(crate) struct Resumption<'a> {
    pub(crate) log: &'a Log,
    pub(crate) limits: &'a [Limit],
    pub(crate) concurrency: usize,
    pub(crate) grace: Duration,
    pub(crate) template: &'a Template,
}

/// What has been read of the items that may have been running.
#[derive(Default)]
struct ReadAhead {
    weights: Vec<u64>,
    /// How many of them have no row: an item with a row may have run again, but never instead of one without.
    unlogged: usize,
    ended: bool,
}

impl Resumption<'_> {
    /// How long the calls of commands that were killed may still be on their way.
    pub(crate) fn grace_left(&self, history: &History) -> Duration {
        history.grace_left(self.log.now_ns(), self.grace)
    }

    /// The limiter, with all in its windows that may still count. Items are read as far as it helps to know
    /// more; nothing waits for them that could be started without.
    pub(crate) async fn limiter(
        &self,
        builder: RateLimiterBuilder,
        source: &mut ItemSource,
        history: &mut History,
    ) -> Result<RateLimiter, Error> {
        let most = self.concurrency;
        let Some(heaviest) = self.heaviest().filter(|_| history.began()) else {
            return self.build(builder, history, history.in_flight(most, &[], most, 1));
        };
        let careful = history.in_flight(most, &[], most, heaviest);
        let careful = self.build(builder.clone(), history, careful)?;
        let mut ahead = ReadAhead::default();
        while ahead.unlogged < most && !ahead.ended {
            let first =
                ahead.weights.iter().copied().find(|weight| (1..=heaviest).contains(weight));
            tokio::select! {
                biased;
                found = source.receive(history), if source.ahead.len() < LOOK_AHEAD_MAX => match found {
                    Some(found) => {
                        self.note(&found, history, heaviest, &mut ahead);
                        source.ahead.push_back(found);
                    }
                    None => ahead.ended = true,
                },
                permit = careful.acquire_weight(first.unwrap_or(1)), if first.is_some() => {
                    // The first item could start, whatever was running.
                    permit.map(Permit::release_unused).ok();
                    return Ok(careful.clone());
                }
                else => return Ok(careful.clone()), // Ten thousand, and none that can run.
            }
        }
        let unseen = most.saturating_sub(ahead.unlogged);
        self.build(builder, history, history.in_flight(most, &ahead.weights, unseen, 1))
    }

    fn note(&self, found: &InputEvent, history: &History, heaviest: u64, ahead: &mut ReadAhead) {
        match found {
            InputEvent::Item(item) => {
                ahead.weights.push(item.weight);
                // What cannot run stands for nothing that did (but may have run under other limits).
                let may_have_run = self.can_run(item, heaviest) && !history.knows(&item.text);
                ahead.unlogged += usize::from(may_have_run);
            }
            InputEvent::Stop(_) => ahead.ended = true,
            _ => {}
        }
    }

    fn can_run(&self, item: &Item, heaviest: u64) -> bool {
        (1..=heaviest).contains(&item.weight) && self.template.fill(item).is_ok()
    }

    /// The heaviest task that the limits allow, if any is of weight.
    fn heaviest(&self) -> Option<u64> {
        let of_weight = self.limits.iter().filter(|limit| limit.unit() == Unit::Weight);
        of_weight.map(Limit::rate).min()
    }

    fn build(
        &self,
        builder: RateLimiterBuilder,
        history: &History,
        in_flight: Vec<u64>,
    ) -> Result<RateLimiter, Error> {
        let ended = history.ended(self.log.now_ns(), self.grace);
        let until_now = in_flight.into_iter().map(|weight| (Duration::ZERO, weight));
        Ok(builder.history(ended).history(until_now).build()?)
    }
}
