//! The processor's tick counter, as a fast way to read the operating system's clock.
//!
//! Asking the operating system takes as long as everything else an uncontended acquire and its
//! completion do together, and a completion has to be stamped every time. So between two readings of
//! the operating system's clock (an *anchor* each), at most [`ANCHOR_NS`] apart, the time is the
//! anchor's plus the ticks since, at the tick length last measured between anchors.
//!
//! Such a reading can be off; by how much is bounded, and the bound is part of the reading:
//! the true time lies in `earliest..=latest`. A completion counts from the latest it can have been,
//! and what is held expires by the earliest it can be, so the doubt costs throughput, never
//! strictness.
//!
//! What the bound of [`DOUBT_NS`] is made of, over a stretch of [`ANCHOR_NS`]: two anchors, each
//! placed to within half of [`ANCHOR_SPREAD_NS`], give the tick length to within 250 ns of it; the
//! operating system may change the pace of its clock by 500 ppm, 500 ns of it; the anchor's own
//! place is off by 125 ns at most; and the processor may read the counter ahead of instructions
//! before it, by well under 500 ns.
//!
//! All of this assumes a counter that is steady and the same on every processor. The kernel watches that:
//! where it keeps time by the counter itself, it has found it so, and where it finds otherwise it turns to
//! another source. It is asked which it uses when the first limiter is made and every
//! [`ASK_AGAIN`] while one is in use; once it has given the counter up, so has every limiter.

use std::arch::x86_64::_rdtsc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::Reading;

/// How long an anchor serves.
const ANCHOR_NS: u64 = 1_000_000;

/// An anchor is the operating system's time between two readings of the counter no further apart
/// than this. Where they are (the thread was interrupted in between), it is not used.
const ANCHOR_SPREAD_NS: u64 = 250;

/// The true time is within this much of a reading, either way.
const DOUBT_NS: u64 = 2_000;

/// How often the kernel is asked whether it still keeps time by the counter.
const ASK_AGAIN: Duration = Duration::from_secs(2);

/// Two measurements of the tick length that differ by more than one part in this many do not
/// belong to one steady counter.
const STEADY: u64 = 1_000;

#[derive(Debug, Clone, Copy)]
struct Anchor {
    ticks: u64,
    ns: u64,
}

#[derive(Debug)]
pub(super) struct Tsc {
    counter: &'static Trust,
    anchor: Option<Anchor>,
    /// The length of a tick in 2⁻³² ns, from the last two anchors. 0 when not known.
    tick_length: u64,
    /// How many ticks past the anchor it may be used: 0 until two measurements have agreed.
    valid_for: u64,
}

/// Whether the counter is to be trusted, as the kernel says from time to time.
#[derive(Debug)]
struct Trust {
    kernel_uses_it: fn() -> bool,
    ask_again: Duration,
    asked: Mutex<Option<Instant>>,
    is_given_up: AtomicBool,
}

static TRUST: Trust = Trust::new(kernel_uses_counter, ASK_AGAIN);

fn kernel_uses_counter() -> bool {
    let source = "/sys/devices/system/clocksource/clocksource0/current_clocksource";
    std::fs::read_to_string(source).is_ok_and(|name| name.trim() == "tsc")
}

impl Trust {
    const fn new(kernel_uses_it: fn() -> bool, ask_again: Duration) -> Self {
        let (asked, is_given_up) = (Mutex::new(None), AtomicBool::new(false));
        Self { kernel_uses_it, ask_again, asked, is_given_up }
    }

    /// Asks the kernel where it was not asked of late. What was given up once is so for good.
    fn holds(&self) -> bool {
        // Whoever has the lock is asking.
        if let Ok(mut asked) = self.asked.try_lock()
            && asked.is_none_or(|at| at.elapsed() >= self.ask_again)
        {
            *asked = Some(Instant::now());
            if !(self.kernel_uses_it)() {
                self.is_given_up.store(true, Ordering::Relaxed);
            }
        }
        !self.is_given_up.load(Ordering::Relaxed)
    }
}

impl Tsc {
    /// A reader of the counter, if the kernel itself keeps time by it: it has then found the
    /// counter steady and the same on every processor.
    pub(super) fn new() -> Option<Self> {
        TRUST.holds().then(|| Self::trusting(&TRUST))
    }

    fn trusting(counter: &'static Trust) -> Self {
        Self { counter, anchor: None, tick_length: 0, valid_for: 0 }
    }

    /// The time, from the counter where the last anchor still serves, by asking the operating system.
    #[inline]
    pub(super) fn read(&mut self, ask: impl Fn() -> u64) -> Reading {
        self.read_with(counter, ask)
    }

    #[inline]
    fn read_with(&mut self, counter: impl Fn() -> u64, ask: impl Fn() -> u64) -> Reading {
        if let Some(anchor) = self.anchor {
            let ticks = counter().wrapping_sub(anchor.ticks);
            if ticks < self.valid_for {
                let ns =
                    anchor.ns + ((u128::from(ticks) * u128::from(self.tick_length)) >> 32) as u64;
                return Reading { earliest: ns - DOUBT_NS, latest: ns + DOUBT_NS };
            }
        }
        self.drop_anchor(counter, ask)
    }

    /// Asks the operating system, and measures; unless the kernel has given the counter up.
    #[cold]
    fn drop_anchor(&mut self, counter: impl Fn() -> u64, ask: impl Fn() -> u64) -> Reading {
        let mut ns = ask();
        if !self.counter.holds() {
            *self = Self::trusting(self.counter);
            return Reading::exact(ns);
        }
        // The first time round all of this is out of the processor's caches.
        for _ in 0..3 {
            let before = counter();
            ns = ask();
            let spread = counter().wrapping_sub(before);
            if self.measure(Anchor { ticks: before.wrapping_add(spread / 2), ns }, spread) {
                break;
            }
        }
        Reading::exact(ns)
    }

    /// Measures the tick length between the last anchor and a new one. Whether the new one was
    /// placed well enough to serve; where not, the last one stays, and goes on being out of date.
    fn measure(&mut self, new: Anchor, spread: u64) -> bool {
        let Some(old) = self.anchor else {
            self.anchor = Some(new);
            return true;
        };
        let ns = new.ns.saturating_sub(old.ns);
        if ns < ANCHOR_NS {
            return true;
        }
        let ticks = new.ticks.wrapping_sub(old.ticks).max(1);
        let tick_length =
            u64::try_from((u128::from(ns) << 32) / u128::from(ticks)).unwrap_or(0).max(1);
        let in_ticks = |ns: u64| {
            u64::try_from((u128::from(ns) << 32) / u128::from(tick_length)).unwrap_or(u64::MAX)
        };
        if spread > in_ticks(ANCHOR_SPREAD_NS) {
            return false;
        }
        let is_steady = tick_length.abs_diff(self.tick_length) <= self.tick_length / STEADY;
        let valid_for = if is_steady { in_ticks(ANCHOR_NS) } else { 0 };
        *self = Self { anchor: Some(new), tick_length, valid_for, ..*self };
        true
    }
}

#[inline]
#[expect(unsafe_code, reason = "the one instruction that the library is fast by")]
fn counter() -> u64 {
    // SAFETY: every x86-64 processor has the instruction, it only reads a register, and user mode
    // may execute it: the kernel's own clock reads it there (`Tsc::new` asks for that clock).
    unsafe { _rdtsc() }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    /// A world whose true time, counter and system clock are all known.
    struct World {
        true_ns: Cell<u64>,
        ticks_per_us: Cell<u64>,
        /// In thousandths, so that no part of one is lost on the way.
        milliticks: Cell<u128>,
        system_ns: Cell<u64>,
        system_ppm: Cell<i64>,
    }

    impl World {
        fn new(ticks_per_us: u64) -> Self {
            Self {
                true_ns: Cell::new(0),
                ticks_per_us: Cell::new(ticks_per_us),
                // It wraps on the way.
                milliticks: Cell::new(u128::from(u64::MAX - 1_000_000_000) * 1_000),
                system_ns: Cell::new(1 << 60),
                system_ppm: Cell::new(0),
            }
        }

        fn pass(&self, ns: u64) {
            self.true_ns.set(self.true_ns.get() + ns);
            let passed = u128::from(ns * self.ticks_per_us.get());
            self.milliticks.set(self.milliticks.get() + passed);
            let drift = i64::try_from(ns).unwrap() * self.system_ppm.get() / 1_000_000;
            self.system_ns.set(self.system_ns.get().saturating_add_signed(drift) + ns);
        }

        fn counter(&self) -> u64 {
            self.pass(10);
            (self.milliticks.get() / 1_000) as u64
        }

        /// Reads, and holds the reading against the system's clock at that moment.
        fn read(&self, ticks: &mut Tsc) -> Reading {
            let before = self.system_ns.get();
            let reading = ticks.read_with(
                || self.counter(),
                || {
                    self.pass(20);
                    self.system_ns.get()
                },
            );
            assert!(reading.latest >= before, "{reading:?} is before {before}");
            let after = self.system_ns.get();
            assert!(reading.earliest <= after, "{reading:?} is after {after}");
            reading
        }
    }

    static STEADY: Trust = Trust::new(|| true, Duration::MAX);

    fn is_fast(reading: Reading) -> bool {
        reading.earliest != reading.latest
    }

    #[test]
    fn the_true_time_is_always_within_the_reading() {
        for ticks_per_us in [1_000, 2_596, 5_000] {
            let world = World::new(ticks_per_us);
            let mut ticks = Tsc::trusting(&STEADY);
            let mut fast = 0;
            for step in 0..200_000_u64 {
                world
                    .pass((step * 7_919) % 3_000 + if step % 10_000 == 0 { 50_000_000 } else { 0 });
                // The system's clock is slewed one way, then the other.
                world.system_ppm.set(if step % 40_000 < 20_000 { 250 } else { -250 });
                fast += u32::from(is_fast(world.read(&mut ticks)));
            }
            assert!(fast > 150_000, "{fast} of 200,000 readings were fast");
        }
    }

    #[test]
    fn a_counter_that_changes_its_pace_is_not_trusted_until_it_is_steady_again() {
        let world = World::new(2_596);
        let mut ticks = Tsc::trusting(&STEADY);
        let mut fast = 0;
        for _ in 0..10_000 {
            world.pass(1_000);
            fast += u32::from(is_fast(world.read(&mut ticks)));
        }
        assert!(fast > 5_000, "{fast} of 10,000 readings were fast");
        world.pass(5_000_000);
        world.ticks_per_us.set(1_300);
        world.pass(20_000_000);
        assert!(!is_fast(world.read(&mut ticks)), "a long time has passed");
        world.pass(10_000);
        assert!(!is_fast(world.read(&mut ticks)), "two measurements disagree");
    }

    #[test]
    fn a_counter_that_the_kernel_gives_up_is_given_up_while_the_process_lives() {
        static KERNEL_USES_IT: AtomicBool = AtomicBool::new(true);
        static TRUST: Trust = Trust::new(|| KERNEL_USES_IT.load(Ordering::Relaxed), Duration::ZERO);

        let world = World::new(2_596);
        let mut ticks = Tsc::trusting(&TRUST);
        let mut fast_readings = |readings: u32| {
            let is_fast = |_: &u32| {
                world.pass(1_000);
                is_fast(world.read(&mut ticks))
            };
            (0..readings).filter(is_fast).count()
        };
        assert!(fast_readings(10_000) > 5_000);
        KERNEL_USES_IT.store(false, Ordering::Relaxed);
        // What the last anchor still serves for, a millisecond.
        fast_readings(2_000);
        assert_eq!(fast_readings(10_000), 0);
        KERNEL_USES_IT.store(true, Ordering::Relaxed);
        assert_eq!(fast_readings(10_000), 0, "for good");
    }

    #[test]
    fn the_real_counter_agrees_with_the_real_clock() {
        let Some(mut ticks) = Tsc::new() else { return };
        let begin = Instant::now();
        let now = || (1 << 60) + u64::try_from(begin.elapsed().as_nanos()).unwrap();
        while begin.elapsed().as_millis() < 30 {
            let before = now();
            let Reading { earliest, latest } = ticks.read(now);
            assert!(latest >= before && earliest <= now());
        }
    }
}
