#!/usr/bin/env bash
# Every check there is. Needs a Rust toolchain, CPython from 3.9 with pip, and npm; uses cargo-nextest
# where it is there.
set -euo pipefail
cd "$(dirname "$0")"

step() { printf '\n== %s\n' "$*"; }

if cargo nextest --version >/dev/null 2>&1; then
    tests() { cargo nextest run --no-fail-fast --status-level slow --final-status-level fail "$@"; }
else
    tests() { cargo test --no-fail-fast "$@"; }
fi

step "format"
cargo fmt --all --check

full=(--features strict-rate-limiter/full)

step "lints, with all features, with none, and with each alone"
cargo clippy --locked --workspace "${full[@]}" --all-targets -- -D warnings
for feature in "" keyed metrics stream tokio tower tracing; do
    cargo clippy --locked --quiet -p strict-rate-limiter --no-default-features --features "$feature" --lib -- -D warnings
done

step "lints of the library as it is on machines without the fast clock"
RUSTFLAGS="--cfg portable" cargo clippy --locked --quiet --target-dir target/portable -p strict-rate-limiter \
    --features full --lib -- -D warnings

step "tests"
tests --locked --workspace "${full[@]}" --tests

step "tests, optimised and without debug assertions"
tests --locked --workspace "${full[@]}" --release --tests

step "examples in the docs"
cargo test --locked --workspace "${full[@]}" --doc

step "docs without a warning"
RUSTDOCFLAGS="-D warnings" cargo doc --locked --workspace "${full[@]}" --no-deps --quiet

step "examples"
for example in crates/limiter/examples/*.rs; do
    cargo run --locked --quiet -p strict-rate-limiter --features full --example "$(basename "$example" .rs)" >/dev/null
    echo "ran $(basename "$example")"
done

step "the demonstration: no call of ours is refused"
cargo run --locked --quiet --release --example never_429 target/never_429.svg | tee target/never_429.txt
grep -q '^strict-rate-limiter  *0 ' target/never_429.txt

step "the main job, as the README has it"
seq 60 | cargo run --locked --release -q -p ratelimit-cli -- run 20/200ms -- echo {} | diff - <(seq 60)

step "the proofs, and the machine beside the proven one"
proof/check

step "every order in which threads can meet"
RUSTFLAGS="--cfg interleavings" cargo test --locked --release --target-dir target/interleavings \
    -p strict-rate-limiter --test interleavings

step "a minute of simulated lives, from a fresh seed"
cargo run --locked --release --quiet -p sim -- --seconds 60

step "fuzzing, briefly"
fuzz/run

step "the comparison with the peers, briefly"
cargo run --locked --release --quiet -p bench -- --short >target/bench.txt
grep -A 12 '^| | model' target/bench.txt

python/run_tests.sh

step "all is well"
