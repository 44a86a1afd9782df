//! A state as bytes: for a file, or for any other place that several processes share.
//!
//! Numbers are little-endian and of fixed size; each list has its length before it. The first number is the version.
//! Bytes that are cut off, too long, of another version or contradictory are an error. Nothing here checks that bytes
//! are those that were written: a store that may damage them needs a checksum.

use alloc::vec::Vec;
use core::time::Duration;

use crate::config::Config;
use crate::limit::{Limit, Unit};
use crate::state::{OwnersState, PermitState, STATE_VERSION, State, StateError, WindowState};

impl State {
    /// The state as bytes, behind those that `bytes` has already.
    ///
    /// ```
    /// # use strict_rate_limiter_core::{Config, Limit, Machine, State};
    /// let limit: Limit = "2/1m".parse()?;
    /// let machine = Machine::<()>::new(Config::new([limit]))?;
    /// let mut bytes = Vec::new();
    /// machine.state().write_to(&mut bytes);
    /// assert_eq!(State::from_bytes(&bytes)?, machine.state());
    /// # Ok::<(), Box<dyn core::error::Error>>(())
    /// ```
    pub fn write_to(&self, bytes: &mut Vec<u8>) {
        let mut writer = Writer(bytes);
        writer.u32(self.version);
        writer.config(&self.config);
        writer.list(&self.windows, |writer, window| {
            writer.u64(window.expired);
            writer.u64(window.unbounded);
            writer.pairs(&window.completions);
        });
        writer.pairs(&self.queue);
        writer.pairs(&self.unclaimed);
        writer.pairs(&self.abandoned);
        writer.u64(self.running as u64);
        writer.0.extend_from_slice(&self.running_weight.to_le_bytes());
        let numbers =
            [self.completed, self.next_ticket, self.now, self.last_end, self.paused_until];
        for number in numbers {
            writer.u64(number);
        }
        writer.bool(self.closed);
        writer.bool(self.owners.is_some());
        if let Some(owners) = &self.owners {
            writer.owners(owners);
        }
    }

    /// Reads what [`Self::write_to`] has written. [`Machine::restore`](crate::Machine::restore) checks what it says.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, StateError> {
        let mut reader = Reader(bytes);
        let version = reader.u32()?;
        if version != STATE_VERSION {
            return Err(StateError::Version(version));
        }
        let config = reader.config()?;
        let windows = reader.list(|reader| {
            let (expired, unbounded) = (reader.u64()?, reader.u64()?);
            Ok(WindowState { completions: reader.pairs()?, expired, unbounded })
        })?;
        let (queue, unclaimed, abandoned) = (reader.pairs()?, reader.pairs()?, reader.pairs()?);
        let running = reader.usize()?;
        let running_weight = u128::from_le_bytes(reader.array()?);
        let (completed, next_ticket, now) = (reader.u64()?, reader.u64()?, reader.u64()?);
        let (last_end, paused_until) = (reader.u64()?, reader.u64()?);
        let closed = reader.bool()?;
        let owners = if reader.bool()? { Some(reader.owners()?) } else { None };
        if !reader.0.is_empty() {
            return Err(StateError::Corrupt("bytes behind the end"));
        }
        Ok(Self {
            version,
            config,
            windows,
            queue,
            unclaimed,
            abandoned,
            running,
            running_weight,
            completed,
            next_ticket,
            now,
            last_end,
            paused_until,
            closed,
            owners,
        })
    }
}

struct Writer<'a>(&'a mut Vec<u8>);

impl Writer<'_> {
    fn u32(&mut self, number: u32) {
        self.0.extend_from_slice(&number.to_le_bytes());
    }

    fn u64(&mut self, number: u64) {
        self.0.extend_from_slice(&number.to_le_bytes());
    }

    fn bool(&mut self, is: bool) {
        self.0.push(u8::from(is));
    }

    fn list<R>(&mut self, items: &[R], write: impl Fn(&mut Self, &R)) {
        self.u64(items.len() as u64);
        for item in items {
            write(self, item);
        }
    }

    fn pair(&mut self, (first, second): (u64, u64)) {
        self.u64(first);
        self.u64(second);
    }

    fn pairs(&mut self, pairs: &[(u64, u64)]) {
        self.list(pairs, |writer, pair| writer.pair(*pair));
    }

    fn config(&mut self, config: &Config) {
        self.list(&config.limits, |writer, limit| {
            writer.bool(limit.unit() == Unit::Weight);
            writer.pair((limit.rate(), limit.per_ns()));
        });
        self.bool(config.paced);
        self.bool(config.refuse_when_full);
        self.u64(config.concurrency as u64);
        self.u64(config.queue_capacity as u64);
        self.u64(config.abandon_grace_ns);
        self.u32(config.clock_drift_ppm);
    }

    fn owners(&mut self, owners: &OwnersState) {
        self.u64(owners.next_session);
        self.pairs(&owners.waiters);
        self.list(&owners.permits, |writer, permit| {
            writer.pair((permit.ticket, permit.session));
            writer.pair((permit.weight, permit.granted_at));
        });
        self.bool(owners.told.is_some());
        if let Some(told) = owners.told {
            self.pair(told);
        }
    }
}

/// What is left to read.
struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn array<const N: usize>(&mut self) -> Result<[u8; N], StateError> {
        let (array, rest) =
            self.0.split_first_chunk().ok_or(StateError::Corrupt("the bytes are cut off"))?;
        self.0 = rest;
        Ok(*array)
    }

    fn u32(&mut self) -> Result<u32, StateError> {
        self.array().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Result<u64, StateError> {
        self.array().map(u64::from_le_bytes)
    }

    fn usize(&mut self) -> Result<usize, StateError> {
        usize::try_from(self.u64()?).map_err(|_| StateError::Corrupt("a number out of range"))
    }

    fn bool(&mut self) -> Result<bool, StateError> {
        match self.array()? {
            [0] => Ok(false),
            [1] => Ok(true),
            _ => Err(StateError::Corrupt("neither yes nor no")),
        }
    }

    fn list<R>(
        &mut self,
        mut read: impl FnMut(&mut Self) -> Result<R, StateError>,
    ) -> Result<Vec<R>, StateError> {
        let len = self.usize()?;
        // Each item takes a byte or more, so no length makes this allocate more than there can be.
        let mut items = Vec::with_capacity(len.min(self.0.len() / size_of::<R>().max(1)));
        for _ in 0..len {
            items.push(read(self)?);
        }
        Ok(items)
    }

    fn pair(&mut self) -> Result<(u64, u64), StateError> {
        Ok((self.u64()?, self.u64()?))
    }

    fn pairs(&mut self) -> Result<Vec<(u64, u64)>, StateError> {
        self.list(Self::pair)
    }

    fn config(&mut self) -> Result<Config, StateError> {
        let limits = self.list(|reader| {
            let weighs = reader.bool()?;
            let (rate, per_ns) = reader.pair()?;
            let per = Duration::from_nanos(per_ns);
            let limit = if weighs { Limit::weight(rate, per) } else { Limit::tasks(rate, per) };
            limit.map_err(|_| StateError::Corrupt("a limit that is none"))
        })?;
        let (paced, refuse_when_full) = (self.bool()?, self.bool()?);
        Ok(Config {
            paced,
            refuse_when_full,
            concurrency: self.usize()?,
            queue_capacity: self.usize()?,
            abandon_grace_ns: self.u64()?,
            clock_drift_ppm: self.u32()?,
            ..Config::new(limits)
        })
    }

    fn owners(&mut self) -> Result<OwnersState, StateError> {
        let next_session = self.u64()?;
        let waiters = self.pairs()?;
        let permits = self.list(|reader| {
            let (ticket, session) = reader.pair()?;
            let (weight, granted_at) = reader.pair()?;
            Ok(PermitState { ticket, session, weight, granted_at })
        })?;
        let told = if self.bool()? { Some(self.pair()?) } else { None };
        Ok(OwnersState { next_session, waiters, permits, told })
    }
}
