//! The simulator itself: a seed is a life, and lives come to their end.

use sim::{live, runtime};

#[test]
fn a_seed_reproduces_a_life_step_by_step() {
    let runtime = runtime();
    for seed in [0, 7, 42, 1_234_567] {
        let [once, again] = [(); 2].map(|()| live(seed, &runtime).expect("no finding"));
        assert_eq!(once, again);
        assert_ne!(once.digest, live(seed + 1, &runtime).expect("no finding").digest);
    }
}

#[test]
fn lives_are_long_and_troubled_enough_to_find_something() {
    let runtime = runtime();
    let mut all = sim::Tally::default();
    for seed in 0..60 {
        all.add(&live(seed, &runtime).unwrap_or_else(|finding| panic!("{finding}")));
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
