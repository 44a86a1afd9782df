//! A limiter for each key: a user, a host, an account.
//!
//! A key's limiter is made at the key's first use. It is removed when a new one would decide the same: its window
//! is empty, nothing runs or waits, and there is no other handle to it (permits and waiters are handles too). Each
//! new key checks two old ones, in rotation, and removes those that are idle. So at most about half of the known
//! keys are idle.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::hash::{Hash, RandomState};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use dashmap::DashMap;
use dashmap::mapref::entry::Entry;
use strict_rate_limiter_core::Limit;

use crate::builder::RateLimiterBuilder;
#[cfg(feature = "tokio")]
use crate::error::PushError;
use crate::error::{AcquireError, BuildError, TryAcquireError};
use crate::future::AcquireOwned;
use crate::limiter::RateLimiter;
use crate::permit::OwnedPermit;
#[cfg(feature = "tokio")]
use crate::push::Pushed;
use crate::request::OwnedRequest;

/// How many old keys each new key checks. With two, all keys are checked before their number has doubled.
const LOOKS: usize = 2;

/// A [`RateLimiter`] for each key, all with the same settings unless a key has its own.
///
/// ```
/// use strict_rate_limiter::{KeyedRateLimiter, RateLimiter};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let per_user = KeyedRateLimiter::builder(RateLimiter::builder().limit("10/1s".parse()?))
///     .key("alice".to_string(), RateLimiter::builder().limit("100/1s".parse()?))
///     .build()?;
///
/// let permit = per_user.acquire(&"bob".to_string()).await?;
/// permit.complete();
/// assert_eq!(per_user.limiter(&"alice".to_string()).limits(), ["100/1s".parse()?]);
/// # Ok(())
/// # }
/// ```
///
/// A clone is another handle to the same limiters.
///
/// # Memory
///
/// A key is idle if its window is empty, no task of it runs or waits, it is not paused, and there is no
/// handle to its limiter, no permit and no waiter. A new limiter would then decide the same, so the key is
/// removed. Each new key checks two old ones, so memory follows the number of busy keys;
/// [`forget_idle`](Self::forget_idle) checks all at once.
pub struct KeyedRateLimiter<K> {
    keys: Arc<Keys<K>>,
}

/// Makes a [`KeyedRateLimiter`]; from [`KeyedRateLimiter::builder`].
#[derive(Debug, Clone)]
#[must_use = "a builder makes nothing until `build`"]
pub struct KeyedRateLimiterBuilder<K> {
    every: RateLimiterBuilder,
    own: HashMap<K, RateLimiterBuilder>,
}

struct Keys<K> {
    every: RateLimiterBuilder,
    own: HashMap<K, RateLimiterBuilder>,
    limiters: DashMap<K, RateLimiter, RandomState>,
    /// The keys of `limiters`, in the order in which they are checked. Locked before the map.
    round: Mutex<VecDeque<K>>,
    closed: AtomicBool,
    /// Whether a key was removed: a new limiter may be of a key that had one.
    has_forgotten: AtomicBool,
}

impl<K: Hash + Eq + Clone> KeyedRateLimiterBuilder<K> {
    /// Gives a key its own settings instead of the common ones.
    pub fn key(mut self, key: K, settings: RateLimiterBuilder) -> Self {
        self.own.insert(key, settings);
        self
    }

    /// Makes the keyed limiter. All settings are checked now, even if their keys are never used.
    pub fn build(mut self) -> Result<KeyedRateLimiter<K>, BuildError> {
        for settings in self.own.values_mut().chain([&mut self.every]) {
            settings.clone().build()?;
            settings.share_name();
        }
        let keys = Keys {
            every: self.every,
            own: self.own,
            limiters: DashMap::with_hasher(RandomState::new()),
            round: Mutex::new(VecDeque::new()),
            closed: AtomicBool::new(false),
            has_forgotten: AtomicBool::new(false),
        };
        Ok(KeyedRateLimiter { keys: Arc::new(keys) })
    }
}

impl<K: Hash + Eq + Clone> KeyedRateLimiter<K> {
    /// A limiter for each key with these settings.
    pub fn new(settings: RateLimiterBuilder) -> Result<Self, BuildError> {
        Self::builder(settings).build()
    }

    /// As [`new`](Self::new), but some keys can have their own settings.
    pub fn builder(settings: RateLimiterBuilder) -> KeyedRateLimiterBuilder<K> {
        KeyedRateLimiterBuilder { every: settings, own: HashMap::new() }
    }

    /// The limiter of a key, for pauses, stats, other limits and so on. The key is kept while a handle to its limiter
    /// exists. It is kept for ever once its limits or its concurrency were changed, as a new limiter would have the
    /// common settings.
    pub fn limiter(&self, key: &K) -> RateLimiter {
        match self.keys.limiters.get(key) {
            Some(limiter) => limiter.clone(),
            None => self.make(key),
        }
    }

    /// The limits of all keys: those of the common settings, then those of keys with their own settings. Limits that a
    /// key was given later with [`set_limits`](RateLimiter::set_limits) are not among them.
    ///
    /// ```
    /// # use strict_rate_limiter::{KeyedRateLimiter, RateLimiter};
    /// let common = RateLimiter::builder().limit("10/1s".parse()?);
    /// let alice = RateLimiter::builder().limit("100/1s".parse()?);
    /// let limiters = KeyedRateLimiter::builder(common).key("alice", alice).build()?;
    /// assert_eq!(limiters.limits(), ["10/1s".parse()?, "100/1s".parse()?]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn limits(&self) -> Vec<Limit> {
        let settings = [&self.keys.every].into_iter().chain(self.keys.own.values());
        settings.flat_map(RateLimiterBuilder::configured_limits).copied().collect()
    }

    /// A request for this key, with a weight or a deadline. It borrows nothing, as the key may be removed. See
    /// [`RateLimiter::request`].
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use strict_rate_limiter::{KeyedRateLimiter, RateLimiter};
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let per_user = KeyedRateLimiter::new(RateLimiter::builder().limit("90000w/1m".parse()?))?;
    /// let request = per_user.request(&"alice").weight(1_200).within(Duration::from_secs(2));
    /// request.acquire().await?.complete();
    /// # Ok(())
    /// # }
    /// ```
    pub fn request(&self, key: &K) -> OwnedRequest {
        self.with(key, |limiter| limiter.request().owned())
    }

    /// Waits for a permit of this key. See [`RateLimiter::acquire`].
    ///
    /// # Cancel safety
    ///
    /// As [`RateLimiter::acquire`].
    pub fn acquire(&self, key: &K) -> AcquireOwned {
        self.with(key, |limiter| limiter.acquire_owned(1))
    }

    /// Waits on this thread for a permit of this key. See [`RateLimiter::acquire_blocking`].
    pub fn acquire_blocking(&self, key: &K) -> Result<OwnedPermit, AcquireError> {
        self.request(key).acquire_blocking()
    }

    /// Acquires a permit of this key now, or fails. See [`RateLimiter::try_acquire`].
    pub fn try_acquire(&self, key: &K) -> Result<OwnedPermit, TryAcquireError> {
        self.request(key).try_acquire()
    }

    /// Waits for a permit of this key, runs the task and returns its answer. See [`RateLimiter::run`].
    ///
    /// # Cancel safety
    ///
    /// As [`RateLimiter::run`].
    pub async fn run<R: Future>(&self, key: &K, task: R) -> Result<R::Output, AcquireError> {
        self.request(key).run(task).await
    }

    /// Runs the task here if it is granted at once, else queues it. See [`RateLimiter::push`].
    ///
    /// # Cancel safety
    ///
    /// As [`RateLimiter::push`].
    #[cfg(feature = "tokio")]
    pub async fn push<F, R>(&self, key: &K, task: F) -> Result<Pushed<R::Output>, PushError<F>>
    where
        F: FnOnce() -> R + Send + 'static,
        R: Future<Output: Send + 'static> + Send + 'static,
    {
        self.request(key).push(task).await
    }

    /// As [`push`](Self::push), for a synchronous task. See [`RateLimiter::push_fn`].
    ///
    /// # Cancel safety
    ///
    /// As [`RateLimiter::push`].
    #[cfg(feature = "tokio")]
    pub async fn push_fn<F, T>(&self, key: &K, task: F) -> Result<Pushed<T>, PushError<F>>
    where
        F: FnOnce() -> T + Send + 'static,
        T: Send + 'static,
    {
        self.request(key).push_fn(task).await
    }

    /// Refuses new requests from now on, for new keys as well. Accepted tasks still run.
    pub fn close(&self) {
        self.keys.closed.store(true, Ordering::SeqCst);
        // A limiter that is being made meanwhile is inserted under its shard's lock: either it is closed
        // here, or its maker sees the flag.
        self.keys.limiters.iter().for_each(|limiter| limiter.close());
    }

    /// Closes, and empties the queues of all keys. See [`RateLimiter::abort`].
    pub fn abort(&self) {
        self.close();
        // Wakers are foreign code: not under the map's locks.
        let limiters: Vec<RateLimiter> =
            self.keys.limiters.iter().map(|limiter| limiter.clone()).collect();
        limiters.iter().for_each(RateLimiter::abort);
    }

    /// Waits until no task runs and all queues are empty, for the keys that are known at the call.
    ///
    /// # Cancel safety
    ///
    /// Cancel-safe.
    pub async fn drained(&self) {
        let limiters: Vec<RateLimiter> =
            self.keys.limiters.iter().map(|limiter| limiter.clone()).collect();
        for limiter in limiters {
            limiter.drained().await;
        }
    }

    /// The number of known keys.
    pub fn len(&self) -> usize {
        self.keys.limiters.len()
    }

    /// Whether no key is known.
    pub fn is_empty(&self) -> bool {
        self.keys.limiters.is_empty()
    }

    /// Removes all idle keys, and frees their memory. Checks every key. Useful after a burst of keys that no new
    /// keys follow; otherwise new keys do it.
    pub fn forget_idle(&self) {
        let mut round = self.lock_round();
        for _ in 0..round.len() {
            self.look_at_next(&mut round);
        }
        round.shrink_to_fit();
        self.keys.limiters.shrink_to_fit();
    }

    /// Does `work` with the limiter of a key, without another handle to it.
    fn with<R>(&self, key: &K, work: impl FnOnce(&RateLimiter) -> R) -> R {
        match self.keys.limiters.get(key) {
            Some(limiter) => work(&limiter),
            None => work(&self.make(key)),
        }
    }

    /// A key may panic when it is hashed, compared or cloned, and a clock when it is read. So a key enters the
    /// rotation before the map and leaves it after the map. A key that is only in the rotation is removed when
    /// it is checked.
    #[cold]
    fn make(&self, key: &K) -> RateLimiter {
        let keys = &*self.keys;
        let mut round = self.lock_round();
        for _ in 0..LOOKS.min(round.len()) {
            self.look_at_next(&mut round);
        }
        let (in_round, in_map) = (key.clone(), key.clone());
        if let Some(known) = keys.limiters.get(key) {
            return known.clone();
        }
        let settings = keys.own.get(key).unwrap_or(&keys.every).clone();
        let inner = settings.build_inner(true).expect("checked when this was built");
        if keys.has_forgotten.load(Ordering::SeqCst) {
            inner.assume_earlier_tasks();
        }
        let limiter = RateLimiter::from_inner(inner);
        if keys.closed.load(Ordering::SeqCst) {
            limiter.close();
            return limiter;
        }
        round.push_back(in_round);
        match keys.limiters.entry(in_map) {
            Entry::Occupied(known) => known.get().clone(),
            // Later limiters of this key will be closed as well, so there is nothing to keep.
            Entry::Vacant(_) if keys.closed.load(Ordering::SeqCst) => {
                limiter.close();
                limiter
            }
            Entry::Vacant(vacant) => vacant.insert(limiter).clone(),
        }
    }

    fn look_at_next(&self, round: &mut VecDeque<K>) {
        round.rotate_left(1);
        let Some(key) = round.back() else { return };
        // No other thread can get a handle to it while this holds the shard's lock.
        let forgettable = |_: &K, limiter: &RateLimiter| limiter.is_forgettable();
        let forgotten = self.keys.limiters.remove_if(key, forgettable);
        if forgotten.is_some() {
            self.keys.has_forgotten.store(true, Ordering::SeqCst);
        }
        if forgotten.is_some() || !self.keys.limiters.contains_key(key) {
            round.pop_back();
        }
    }

    fn lock_round(&self) -> std::sync::MutexGuard<'_, VecDeque<K>> {
        self.keys.round.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<K> Clone for KeyedRateLimiter<K> {
    fn clone(&self) -> Self {
        Self { keys: Arc::clone(&self.keys) }
    }
}

impl<K: Hash + Eq> fmt::Debug for KeyedRateLimiter<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyedRateLimiter")
            .field("keys", &self.keys.limiters.len())
            .finish_non_exhaustive()
    }
}
