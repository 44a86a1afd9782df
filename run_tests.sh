#!/usr/bin/env bash
usage="./run_tests.sh          every check there is
./run_tests.sh quick    format, lints, tests and doc tests, of Rust and of Python
./run_tests.sh --help   this text

Needs a Rust toolchain, CPython from 3.9 with pip, and npm; uses cargo-nextest where it is there. Stops at the
first step that fails. The last lines are how many seconds each step took."
set -euo pipefail
cd "$(dirname "$0")"

case "$#${1:-}" in
    0) mode=whole ;;
    1quick) mode=quick ;;
    1--help | 1-h) echo "$usage" && exit ;;
    *) printf '%s\n\n%s\n' "unknown: $*" "$usage" >&2 && exit 2 ;;
esac

cores=$(getconf _NPROCESSORS_ONLN)
# One set of features for every build: with another one, cargo would build the dependencies once more.
all=(--locked --workspace --features strict-rate-limiter/full)

began=$(date +%s) doing="" table="" jobs=()
mkdir -p target/beside

seconds_since() { echo $(($(date +%s) - $1)); }

# `step NAME COMMAND…`: says what it does and how long that took.
step() {
    local since
    since=$(date +%s) doing=$1
    printf '\n== %s\n' "$1"
    shift
    "$@"
    printf -- '-- %s s\n' "$(seconds_since "$since")"
    table+=$(printf '%5d s  %s' "$(seconds_since "$since")" "$doing")$'\n'
    doing=""
}

# `start JOB COMMAND…`: begins a command beside the steps, in a process group of its own. What it says is kept.
start() {
    local job=$1
    shift
    set -m
    {
        local since
        since=$(date +%s)
        "$@"
        echo "($(seconds_since "$since") s, beside other steps)"
    } >"target/beside/$job.log" 2>&1 </dev/null &
    set +m
    jobs+=("$job=$!")
}

# `finish JOB`: waits for it and shows what it said. Its failure is the step's.
finish() {
    local left=() each process="" status=0
    for each in "${jobs[@]}"; do
        if [ "${each%%=*}" = "$1" ]; then process=${each#*=}; else left+=("$each"); fi
    done
    wait "$process" || status=$?
    jobs=(${left[@]+"${left[@]}"})
    cat "target/beside/$1.log"
    return "$status"
}

at_the_end() {
    local status=$? each
    for each in ${jobs[@]+"${jobs[@]}"}; do
        kill -- "-${each#*=}" 2>/dev/null || true
        wait "${each#*=}" 2>/dev/null || true
    done
    printf '\n== how long each step took\n%s%5d s  in all\n' "$table" "$(seconds_since "$began")"
    if [ "$status" = 0 ]; then
        printf '\n== all is well\n'
    else
        printf '\n== FAILED: %s\n' "${doing:-run_tests.sh}"
    fi
}
trap at_the_end EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

if cargo nextest --version >/dev/null 2>&1; then
    # Many tests wait for real time or for other processes: more of them at once than there are cores.
    tests() {
        cargo nextest run "${all[@]}" --tests --no-fail-fast --status-level slow --final-status-level fail \
            --test-threads $((4 * cores)) "$@"
    }
else
    tests() { cargo test "${all[@]}" --tests --no-fail-fast "$@"; }
fi

lints_of_each_feature() {
    local feature
    for feature in "" keyed metrics stream tokio tower tracing; do
        cargo clippy --locked --quiet -p strict-rate-limiter --no-default-features --features "$feature" --lib \
            -- -D warnings
    done
}

lints_without_the_fast_clock() {
    RUSTFLAGS="--cfg portable" cargo clippy --locked --quiet --target-dir target/portable \
        -p strict-rate-limiter --features full --lib -- -D warnings
}

examples() {
    local example name
    cargo build "${all[@]}" --quiet --examples
    for example in crates/limiter/examples/*.rs; do
        name=$(basename "$example" .rs)
        "target/debug/examples/$name" >/dev/null
        echo "ran $name"
    done
}

docs() { RUSTDOCFLAGS="-D warnings" cargo doc "${all[@]}" --no-deps --quiet; }

installs() {
    proof/check --install
    fuzz/run --install
    packaging/check --install
    python/run_tests.sh --install
}

demonstration() {
    target/release/examples/never_429 target/never_429.svg | tee target/never_429.txt
    grep -q '^strict-rate-limiter  *0 ' target/never_429.txt
}

main_job() { seq 60 | target/release/ratelimit run 20/200ms -- echo {} | diff - <(seq 60); }

every_order() {
    RUSTFLAGS="--cfg interleavings" cargo test --locked --release --target-dir target/interleavings \
        -p strict-rate-limiter --test interleavings
}

# With every feature of the library; the README's figures are of `cargo run --release -p bench`.
comparison() {
    target/release/bench --short >target/bench.txt
    grep -A 12 '^| | model' target/bench.txt
}

if [ "$mode" = whole ]; then start installs installs; fi

step "format" cargo fmt --all --check
step "lints, with all features" cargo clippy "${all[@]}" --all-targets -- -D warnings
step "lints of the library, with no feature and with each alone" lints_of_each_feature
step "lints of the library as it is on machines without the fast clock" lints_without_the_fast_clock
step "tests" tests
step "examples in the docs" cargo test "${all[@]}" --doc

if [ "$mode" = quick ]; then
    step "Python, in short" python/run_tests.sh quick
    exit
fi

step "docs without a warning" docs
step "examples" examples
step "tests, optimised and without debug assertions" tests --release
step "optimised builds of what the next steps run" cargo build "${all[@]}" --quiet --release --bins --examples
step "what else had to be installed" finish installs

# Each of these three keeps one core busy for most of its time.
start python python/run_tests.sh
start proofs proof/check
step "every order in which threads can meet" every_order
step "the proofs, and the machine beside the proven one" finish proofs
step "Python" finish python

step "what is published, and how" packaging/check
step "the demonstration: no call of ours is refused" demonstration
step "the main job, as the README has it" main_job
step "a minute of simulated lives, from a fresh seed" target/release/sim --seconds 60
step "fuzzing, briefly" fuzz/run
step "the comparison with the peers, briefly" comparison
