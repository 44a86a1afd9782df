//! `--resume`: skips the items that succeeded, and fills the windows with what earlier runs may have used.
//!
//! The log has a row for each task that ended. It has none for the tasks that were running when a run was killed; at
//! most `-j` were. For limits on tasks that number is enough. For limits on weight we need their weights: the
//! killed run took its items in order, so its running tasks are among the first items that are still to be run.
//! Until those are read, each counts as the heaviest task that the limits allow.

use std::collections::VecDeque;
use std::time::Duration;

use strict_rate_limiter::{Limit, Permit, RateLimiter, RateLimiterBuilder, Unit};
use tokio::sync::mpsc;

use crate::error::Error;
use crate::history::History;
use crate::items::{InputEvent, Item};
use crate::log::Log;
use crate::template::{Template, UnresolvedTemplate};

/// The most items that are read ahead to learn the weights of tasks that may have been running.
const LOOK_AHEAD_MAX: usize = 10_000;

/// The items that are still to be run: the input, without those that an earlier run completed.
pub(crate) struct ItemSource {
    items: mpsc::Receiver<InputEvent>,
    ahead: VecDeque<InputEvent>,
    pub(crate) skipped: u64,
}

impl ItemSource {
    pub(crate) fn new(items: mpsc::Receiver<InputEvent>) -> Self {
        Self { items, ahead: VecDeque::new(), skipped: 0 }
    }

    /// Resolves the command template, when the columns of the input are known.
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

    /// The number of items that were read but not taken.
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

/// The inputs for computing how much of the limits an earlier run may have used.
pub(crate) struct Resumption<'a> {
    pub(crate) log: &'a Log,
    pub(crate) limits: &'a [Limit],
    pub(crate) concurrency: usize,
    pub(crate) grace: Duration,
    pub(crate) template: &'a Template,
}

/// The items read ahead that may have been running.
#[derive(Default)]
struct ReadAhead {
    weights: Vec<u64>,
    /// The number of items without a row. Items with a row may have run again, but only in addition.
    unlogged: usize,
    ended: bool,
}

impl Resumption<'_> {
    /// The time for which the calls of killed commands may still be on their way.
    pub(crate) fn grace_left(&self, history: &History) -> Duration {
        history.grace_left(self.log.now_ns(), self.grace)
    }

    /// Builds the limiter with everything in its windows that may still count. Reads items ahead to learn weights,
    /// but stops as soon as the first item could start without knowing more.
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
                permit = careful.request().weight(first.unwrap_or(1)).acquire(), if first.is_some() => {
                    // The first item could start now, even in the worst case.
                    permit.map(Permit::release_unused).ok();
                    return Ok(careful.clone());
                }
                else => return Ok(careful.clone()), // Ten thousand items, and none that can run.
            }
        }
        let unseen = most.saturating_sub(ahead.unlogged);
        self.build(builder, history, history.in_flight(most, &ahead.weights, unseen, 1))
    }

    fn note(&self, found: &InputEvent, history: &History, heaviest: u64, ahead: &mut ReadAhead) {
        match found {
            InputEvent::Item(item) => {
                ahead.weights.push(item.weight);
                // An item that cannot run was not running (unless the earlier run had other limits).
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

    /// The heaviest task that the limits on weight allow, if there are any.
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
