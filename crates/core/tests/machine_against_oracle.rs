//! Random operations on the machine and on the slow oracle. After each, both must have decided the same, the
//! law must hold, and the machine must be the same after a round trip through its state.

mod oracle;

use oracle::pair::{Op, Pair};
use proptest::prelude::*;
use proptest::test_runner::FileFailurePersistence;
use strict_rate_limiter_core::{Config, Limit};

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let weight = || 0_u64..8;
    let which = || any::<usize>();
    let op = prop_oneof![
        8 => (0_u64..30).prop_map(Op::Advance),
        2 => Just(Op::Advance(1)),
        1 => (1_u64..200).prop_map(Op::Advance),
        1 => (1_u64..50).prop_map(Op::ClockGoesBack),
        8 => weight().prop_map(Op::Enqueue),
        4 => weight().prop_map(Op::TryGrant),
        4 => weight().prop_map(Op::GrantAtOnce),
        8 => which().prop_map(Op::Claim),
        3 => which().prop_map(Op::CancelWaiting),
        2 => which().prop_map(Op::CancelGranted),
        1 => which().prop_map(Op::Undo),
        10 => (which(), proptest::option::of(0_u64..12), 0_u64..3)
            .prop_map(|(which, actual, bound)| Op::Complete { which, actual, bound }),
        2 => which().prop_map(Op::Abandon),
        1 => (weight(), proptest::option::of(0_u64..12), 0_u64..3)
            .prop_map(|(weight, actual, bound)| Op::CompleteMadeUp { weight, actual, bound }),
        1 => weight().prop_map(Op::UndoMadeUp),
        1 => (0_u64..60).prop_map(Op::Pause),
        1 => Just(Op::Resume),
        1 => (which(), 0_u64..10, 0_u64..3)
            .prop_map(|(which, used, bound)| Op::Reconcile { which, used, bound }),
        1 => (proptest::collection::vec(limit(), 1..4), 0_u64..3)
            .prop_map(|(limits, bound)| Op::SetLimits { limits, bound }),
        1 => (1_usize..5).prop_map(Op::SetConcurrency),
        2 => Just(Op::WriteDownAndReadBack),
    ];
    let ending = prop_oneof![
        3 => Just(vec![]),
        1 => Just(vec![Op::Close]),
        1 => Just(vec![Op::Abort]),
    ];
    (proptest::collection::vec(op.clone(), 1..150), ending, proptest::collection::vec(op, 0..30))
        .prop_map(|(ops, ending, rest)| [ops, ending, rest].concat())
}

fn limit() -> impl Strategy<Value = Limit> {
    (any::<bool>(), 1_u64..8, 1_u64..60).prop_map(|(tasks, rate, per_ns)| {
        let make = if tasks { Limit::tasks } else { Limit::weight };
        make(rate, std::time::Duration::from_nanos(per_ns)).expect("in range")
    })
}

fn config() -> impl Strategy<Value = Config> {
    (
        proptest::collection::vec(limit(), 1..4),
        any::<bool>(),
        1_usize..5,
        prop_oneof![3 => Just(usize::MAX), 1 => 0_usize..4],
        prop_oneof![2 => Just(0_u64), 1 => 1_u64..40],
        prop_oneof![2 => Just(0_u32), 1 => 1_u32..500_000],
    )
        .prop_map(|(limits, paced, concurrency, queue_capacity, grace, drift)| {
            let has_task_limit = limits.iter().any(|limit| limit.units(2) == 1);
            Config {
                paced: paced && has_task_limit,
                concurrency,
                queue_capacity,
                abandon_grace_ns: grace,
                clock_drift_ppm: drift,
                ..Config::new(limits)
            }
        })
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 8_000,
        failure_persistence: Some(Box::new(FileFailurePersistence::WithSource("regressions"))),
        ..ProptestConfig::default()
    })]

    #[test]
    fn the_machine_decides_as_the_oracle_does(config in config(), ops in ops()) {
        let mut pair = Pair::new(config);
        for op in &ops {
            pair.step(op);
        }
    }

    #[test]
    fn no_window_ever_overflows(config in config(), ops in ops()) {
        let mut pair = Pair::new(config);
        for op in &ops {
            pair.step(&op.without_overspend());
        }
        pair.no_window_overflowed();
    }
}
