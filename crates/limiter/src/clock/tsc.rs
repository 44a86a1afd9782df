//! The processor's time stamp counter (TSC), as a fast way to read the operating system's clock.
//!
//! Reading the operating system's clock takes as long as the rest of an uncontended acquire and its
//! completion together, and each completion needs a time. So this reads the operating system's clock and
//! the counter together once in [`CALIBRATION_LASTS_NS`]: a *calibration point*. In between, the time is
//! that of the last point plus the ticks since, times the tick length measured between the last two
//! points.
//!
//! Such a reading has an error, whose bound is part of the reading: the true time lies in
//! `earliest..=latest`. A completion counts from `latest`, and held units expire by `earliest`, so the error
//! costs throughput and never strictness.
//!
//! [`ERROR_BOUND_NS`] covers these errors, each at its largest within [`CALIBRATION_LASTS_NS`]: the tick
//! length, 250 ns (each of its two points is placed to within half of [`SPREAD_MAX_NS`]); the operating
//! system changing the pace of its clock by up to 500 ppm, 500 ns; the time of the last point, 125 ns; and
//! the processor reading the counter ahead of earlier instructions, well under 500 ns.
//!
//! All of this assumes a counter that is steady and the same on every processor. The kernel checks that:
//! it keeps time by the counter only while it finds it so, and changes to another source otherwise. This
//! asks the kernel for its source when the first limiter is made, and every [`ASK_AGAIN`] while a limiter
//! reads the counter. Once the kernel has given the counter up, so do all threads.

use std::arch::x86_64::_rdtsc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::Reading;

/// How long a calibration point is used.
const CALIBRATION_LASTS_NS: u64 = 1_000_000;

/// A calibration point is the operating system's time between two readings of the counter. Where those are
/// further apart than this (the thread was interrupted in between), the point is not used.
const SPREAD_MAX_NS: u64 = 250;

/// A reading is off by at most this much, either way.
const ERROR_BOUND_NS: u64 = 2_000;

/// How often the kernel is asked whether it still keeps time by the counter.
const ASK_AGAIN: Duration = Duration::from_secs(2);

/// Two measurements of the tick length that differ by more than one part in this many show a counter that
/// is not steady.
const STEADY: u64 = 1_000;

#[derive(Debug, Clone, Copy)]
struct CalibrationPoint {
    ticks: u64,
    ns: u64,
}

#[derive(Debug)]
pub(super) struct Tsc {
    kernel: &'static KernelCheck,
    point: Option<CalibrationPoint>,
    /// The length of a tick in 2⁻³² ns, from the last two calibration points. 0 when not known.
    tick_length: u64,
    /// For how many ticks after the point it may be used. 0 until two measurements have agreed.
    valid_for: u64,
}

/// Whether the kernel keeps time by the counter, asked from time to time.
#[derive(Debug)]
struct KernelCheck {
    kernel_uses_it: fn() -> bool,
    ask_again: Duration,
    asked: Mutex<Option<Instant>>,
    is_given_up: AtomicBool,
}

static COUNTER: KernelCheck = KernelCheck::new(kernel_uses_counter, ASK_AGAIN);

fn kernel_uses_counter() -> bool {
    let source = "/sys/devices/system/clocksource/clocksource0/current_clocksource";
    std::fs::read_to_string(source).is_ok_and(|name| name.trim() == "tsc")
}

impl KernelCheck {
    const fn new(kernel_uses_it: fn() -> bool, ask_again: Duration) -> Self {
        let (asked, is_given_up) = (Mutex::new(None), AtomicBool::new(false));
        Self { kernel_uses_it, ask_again, asked, is_given_up }
    }

    /// Asks the kernel, if [`ASK_AGAIN`] has passed since it was asked. A counter that was given up once is
    /// given up for good.
    fn is_trusted(&self) -> bool {
        // If another thread has the lock, it is asking.
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
    /// A reader of the counter.
    pub(super) const fn new() -> Self {
        Self::trusting(&COUNTER)
    }

    /// Whether the kernel keeps time by the counter, and so has found it steady and the same on every
    /// processor.
    pub(super) fn is_trusted() -> bool {
        COUNTER.is_trusted()
    }

    const fn trusting(kernel: &'static KernelCheck) -> Self {
        Self { kernel, point: None, tick_length: 0, valid_for: 0 }
    }

    /// The time: from the counter while the last calibration point may be used, else from the operating
    /// system by `ask`.
    #[inline]
    pub(super) fn read(&mut self, ask: impl Fn() -> u64) -> Reading {
        self.read_with(counter, ask)
    }

    #[inline]
    fn read_with(&mut self, counter: impl Fn() -> u64, ask: impl Fn() -> u64) -> Reading {
        if let Some(point) = self.point {
            let ticks = counter().wrapping_sub(point.ticks);
            if ticks < self.valid_for {
                let ns =
                    point.ns + ((u128::from(ticks) * u128::from(self.tick_length)) >> 32) as u64;
                return Reading { earliest: ns - ERROR_BOUND_NS, latest: ns + ERROR_BOUND_NS };
            }
        }
        self.calibrate(counter, ask)
    }

    /// Asks the operating system, and makes a new calibration point, unless the kernel has given the counter
    /// up.
    #[cold]
    fn calibrate(&mut self, counter: impl Fn() -> u64, ask: impl Fn() -> u64) -> Reading {
        let mut ns = ask();
        if !self.kernel.is_trusted() {
            *self = Self::trusting(self.kernel);
            return Reading::exact(ns);
        }
        // The first round may be slow: its code and data may not be in the processor's caches.
        for _ in 0..3 {
            let before = counter();
            ns = ask();
            let spread = counter().wrapping_sub(before);
            if self.measure(CalibrationPoint { ticks: before.wrapping_add(spread / 2), ns }, spread)
            {
                break;
            }
        }
        Reading::exact(ns)
    }

    /// Measures the tick length between the last calibration point and a new one. Returns whether the new
    /// one was placed well enough to be used. If not, the last one stays, out of date.
    fn measure(&mut self, new: CalibrationPoint, spread: u64) -> bool {
        let Some(old) = self.point else {
            self.point = Some(new);
            return true;
        };
        let ns = new.ns.saturating_sub(old.ns);
        if ns < CALIBRATION_LASTS_NS {
            return true;
        }
        let ticks = new.ticks.wrapping_sub(old.ticks).max(1);
        let tick_length =
            u64::try_from((u128::from(ns) << 32) / u128::from(ticks)).unwrap_or(0).max(1);
        let in_ticks = |ns: u64| {
            u64::try_from((u128::from(ns) << 32) / u128::from(tick_length)).unwrap_or(u64::MAX)
        };
        if spread > in_ticks(SPREAD_MAX_NS) {
            return false;
        }
        let is_steady = tick_length.abs_diff(self.tick_length) <= self.tick_length / STEADY;
        let valid_for = if is_steady { in_ticks(CALIBRATION_LASTS_NS) } else { 0 };
        *self = Self { point: Some(new), tick_length, valid_for, ..*self };
        true
    }
}

#[inline]
#[expect(unsafe_code, reason = "an intrinsic reads the counter")]
fn counter() -> u64 {
    // SAFETY: every x86-64 processor has the instruction, it only reads a register, and user mode
    // may execute it: the kernel's own clock reads it there (`Tsc::new` asks for that clock).
    unsafe { _rdtsc() }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    /// A simulated machine: its true time, counter and system clock.
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

        /// Reads, and compares the reading with the system's clock at that moment.
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

    static STEADY: KernelCheck = KernelCheck::new(|| true, Duration::MAX);

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
        static COUNTER: KernelCheck =
            KernelCheck::new(|| KERNEL_USES_IT.load(Ordering::Relaxed), Duration::ZERO);

        let world = World::new(2_596);
        let mut ticks = Tsc::trusting(&COUNTER);
        let mut fast_readings = |readings: u32| {
            let is_fast = |_: &u32| {
                world.pass(1_000);
                is_fast(world.read(&mut ticks))
            };
            (0..readings).filter(is_fast).count()
        };
        assert!(fast_readings(10_000) > 5_000);
        KERNEL_USES_IT.store(false, Ordering::Relaxed);
        // The last calibration point is used for a millisecond more.
        fast_readings(2_000);
        assert_eq!(fast_readings(10_000), 0);
        KERNEL_USES_IT.store(true, Ordering::Relaxed);
        assert_eq!(fast_readings(10_000), 0, "for good");
    }

    #[test]
    fn the_real_counter_agrees_with_the_real_clock() {
        if !Tsc::is_trusted() {
            return;
        }
        let mut ticks = Tsc::new();
        let begin = Instant::now();
        let now = || (1 << 60) + u64::try_from(begin.elapsed().as_nanos()).unwrap();
        while begin.elapsed().as_millis() < 30 {
            let before = now();
            let Reading { earliest, latest } = ticks.read(now);
            assert!(latest >= before && earliest <= now());
        }
    }
}
