//! The simulator itself: a seed determines a run, and every run ends.

use sim::{runtime, simulate};

#[test]
fn a_seed_reproduces_a_run_step_by_step() {
    let runtime = runtime();
    for seed in [0, 7, 42, 1_234_567] {
        let [once, again] = [(); 2].map(|()| simulate(seed, &runtime).expect("no finding"));
        assert_eq!(once, again);
        assert_ne!(once.digest, simulate(seed + 1, &runtime).expect("no finding").digest);
    }
}

#[test]
fn runs_are_long_and_troubled_enough_to_find_something() {
    let runtime = runtime();
    let mut all = sim::Stats::default();
    // The last: new limits refuse a waiter, which is dropped without another poll.
    for seed in (0..60).chain([1_795_610_316_407]) {
        all.add(&simulate(seed, &runtime).unwrap_or_else(|finding| panic!("{finding}")));
    }
    assert!(all.tasks > 10_000 && all.compared > 100_000, "{all}");
    let troubles = [
        all.abandoned,
        all.panicked,
        all.gave_up,
        all.undone,
        all.aborted,
        all.refused,
        all.set_back,
        all.stalls,
        all.bad_timers,
    ];
    assert!(troubles.iter().all(|times| *times > 0), "{all}");
    assert!(all.full * 4 > all.audits, "limits that are not used up show little: {all}");
    assert!((all.fullest - 1.0).abs() < 1e-9, "{all}");
}
