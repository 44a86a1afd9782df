#!/usr/bin/env python3
"""Breaks the code on purpose, one break at a time, and says which means catch each.

A guarantee is as good as what would notice its loss. Every break here has to be caught by at least
two means that share nothing with each other:

  oracle     core's tests: the machine beside a limiter that remembers everything and scans it
  model      the proven machine, extracted from Coq, beside random traces of the real one
  simulator  the library through random lives, held to its referee and the audit
  library    the library's own tests, in manual time and on real threads
  loom       every order in which threads can meet; asked only where the library is broken, not core

Works on a copy of what is committed, in target/breaks; half an hour for all. `break_tests.py WORD`: only those whose
name has the word in it. Exit code 1 if a break is caught by fewer than two.
"""

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent
TREE = ROOT / "target" / "breaks" / "tree"


class Break(NamedTuple):
    name: str
    file: str
    good: str
    bad: str


CORE = "crates/core/src/"
LIBRARY = "crates/limiter/src/"

BREAKS = [
    Break("the window is open, not closed", CORE + "window.rs",
          "if now <= entry.at.saturating_add(self.per_ns)", "if now < entry.at.saturating_add(self.per_ns)"),
    Break("opens one nanosecond early", CORE + "window.rs",
          "saturating_add(self.per_ns).saturating_add(1))", "saturating_add(self.per_ns))"),
    Break("one more than the rate fits", CORE + "window.rs",
          "self.limit.units(weight) <= self.limit.rate()", "self.limit.units(weight) <= 1 + self.limit.rate()"),
    Break("one less than the rate fits", CORE + "window.rs",
          "self.limit.units(weight) <= self.limit.rate()", "self.limit.units(weight) < self.limit.rate()"),
    Break("a completion is stamped as early as the one before it", CORE + "machine.rs",
          "self.last_end = self.last_end.max(ended_at);\n        self.running -= 1;",
          "let _ = ended_at;\n        self.running -= 1;"),
    Break("a completion is stamped before the clock's doubt ends", CORE + "machine.rs",
          "self.record(reserved, actual, ended_at.max(self.now));",
          "let _ = ended_at;\n        self.record(reserved, actual, self.now);"),
    Break("a grant that is undone stays held", CORE + "machine.rs",
          "            window.give_back(weight);\n", "            let _ = (&window, weight);\n"),
    Break("a grant that is undone goes on running", CORE + "machine.rs",
          "let weight = permit.into_weight();\n        self.running -= 1;",
          "let weight = permit.into_weight();"),
    Break("a newcomer overtakes whoever waits", CORE + "machine.rs",
          "!self.closed && self.queue.is_empty()", "!self.closed"),
    Break("one more than the concurrency runs", CORE + "machine.rs",
          "            && self.running < self.config.concurrency\n",
          "            && self.running <= self.config.concurrency\n"),
    Break("an excess over the reserved weight is not recorded", CORE + "window.rs",
          "self.limit.units(actual).min(self.limit.rate());\n        self.give_back",
          "self.limit.units(actual.min(reserved)).min(self.limit.rate());\n        self.give_back"),
    Break("the unused part of a reserved weight is kept", CORE + "window.rs",
          "self.limit.units(actual).min(self.limit.rate());\n        self.give_back",
          "self.limit.units(actual.max(reserved)).min(self.limit.rate());\n        self.give_back"),
    Break("an abandoned task has no grace", CORE + "machine.rs",
          "if self.config.abandon_grace_ns == 0 {", "if self.config.abandon_grace_ns < u64::MAX {"),
    Break("a pause does not stop who waits", CORE + "machine.rs",
          "        self.paused_until == 0\n            && ", "        "),
    Break("a closed limiter grants at once", CORE + "machine.rs",
          "weight != 0 && !self.closed && self.queue", "weight != 0 && self.queue"),
    Break("a second limit is not asked", CORE + "machine.rs",
          "self.windows.iter().all(|window| window.has_room(weight))",
          "self.windows.iter().take(1).all(|window| window.has_room(weight))"),
    Break("drift is rounded down", CORE + "window.rs",
          ".div_ceil(1_000_000) as u64;", ".div_euclid(1_000_000) as u64;"),
    Break("the line is served last in, first out", CORE + "queue.rs",
          "let entry = self.entries.pop_front()?;", "let entry = self.entries.pop_back()?;"),
    Break("merged completions are stamped with the earlier", CORE + "window.rs",
          "*last = Entry { at, total };", "*last = Entry { at: last.at, total };"),
    Break("a waiter that leaves wakes nobody", LIBRARY + "shared.rs",
          "let waker = inner.machine.cancel(ticket);\n        self.settle(inner, None);",
          "let waker = inner.machine.cancel(ticket);\n        drop(inner);"),
    Break("a completion wakes nobody", LIBRARY + "shared.rs",
          "let excess = inner.machine.complete(permit, earliest, latest, actual);\n        self.settle(inner, Some(earliest));",
          "let excess = inner.machine.complete(permit, earliest, latest, actual);\n        drop(inner);"),
    Break("whoever was granted is not woken", LIBRARY + "shared.rs",
          "Decision::Grant { waiter, .. } => wakes.push(waiter),", "Decision::Grant { waiter, .. } => drop(waiter),"),
    Break("the timer is not set", LIBRARY + "shared.rs",
          "look_at.map_or(Poll::Pending, |at| inner.lookout.set_timer(at))",
          "look_at.map_or(Poll::Pending, |_| Poll::Pending)"),
    Break("a timer that came early is not set again", LIBRARY + "lookout.rs",
          "planned anew.\n    pub(crate) fn timer_has_come(&mut self) {\n        self.armed_for = None;",
          "planned anew.\n    pub(crate) fn timer_has_come(&mut self) {\n        let _ = &self.armed_for;"),
    Break("the timer grants without asking the clock", LIBRARY + "shared.rs",
          "self.drive_and_wake(inner, self.clock.now());\n    }\n\n    #[inline]\n    fn lock",
          "self.drive_and_wake(inner, self.clock.now() + 1_000);\n    }\n\n    #[inline]\n    fn lock"),
    Break("a dropped waiter stays in the line", LIBRARY + "waiter.rs",
          "            self.shared.leave(ticket);\n", "            let _ = ticket;\n"),
    Break("a dropped permit is never handed back", LIBRARY + "permit.rs",
          "            self.shared.abandon(permit);\n", "            drop(permit);\n"),
    Break("an abort wakes nobody", LIBRARY + "shared.rs",
          "aborted.into_iter().for_each(Waker::wake);", "drop(aborted);"),
]

NEXTEST = "cargo nextest run --locked --status-level none --final-status-level none -p"
LOOM = ("env RUSTFLAGS='--cfg interleavings' cargo test --locked --release --quiet --target-dir target/interleavings"
        " -p strict-rate-limiter --test interleavings")
# How each means is built, and what fails where it sees the break.
MEANS = {
    "oracle": (f"{NEXTEST} strict-rate-limiter-core --no-run", f"{NEXTEST} strict-rate-limiter-core"),
    "model": ("cargo build --locked --quiet --release -p strict-rate-limiter-core --example trace", "proof/check 5000"),
    "simulator": ("cargo build --locked --quiet --release -p sim", "target/release/sim --seconds 30"),
    "library": (f"{NEXTEST} strict-rate-limiter --no-run", f"{NEXTEST} strict-rate-limiter"),
    "loom": (f"{LOOM} --no-run", LOOM),
}
# Longer than they run; what goes on for ever is caught as well.
PATIENCE_S = {"oracle": 40, "model": 90, "simulator": 80, "library": 40, "loom": 150}


def catches(means: str) -> bool:
    """Whether what it runs ends in an error, or never."""
    build, run = MEANS[means]
    subprocess.run(build, cwd=TREE, shell=True, check=True, capture_output=True)
    process = subprocess.Popen(run, cwd=TREE, shell=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                               start_new_session=True)
    try:
        return process.wait(timeout=PATIENCE_S[means]) != 0
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        return True


def main() -> int:
    wanted = sys.argv[1] if len(sys.argv) > 1 else ""
    if TREE.exists():
        subprocess.run(["git", "-C", TREE, "checkout", "--quiet", "--", "."], check=True)
        subprocess.run(["git", "-C", TREE, "pull", "--quiet"], check=True)
    else:
        subprocess.run(["git", "clone", "--quiet", ROOT, TREE], check=True)
    for means in MEANS:
        if catches(means):
            sys.exit(f"{means} fails where nothing is broken")
    missed = 0
    print("| break | caught by |\n|---|---|", flush=True)
    for name, file, good, bad in BREAKS:
        if wanted not in name:
            continue
        path = TREE / file
        text = path.read_text()
        if text.count(good) != 1:
            sys.exit(f"{name}: {file} has that {text.count(good)} times")
        path.write_text(text.replace(good, bad))
        try:
            asked = [means for means in MEANS if means != "loom" or file.startswith(LIBRARY)]
            caught = [means for means in asked if catches(means)]
        finally:
            path.write_text(text)
        missed += len(caught) < 2
        print(f"| {name} | {', '.join(caught) or 'nothing'} |", flush=True)
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
