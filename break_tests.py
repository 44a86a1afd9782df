#!/usr/bin/env python3
"""Breaks the code on purpose, one break at a time, and says which means catch each.

A guarantee is only as good as the checks that fail when it is lost. `breaks/*.toml` lists the breaks, the means that
could catch each, and how many of those must:

  oracle      core's tests: the machine beside a limiter that remembers everything and scans it
  model       the proved machine, extracted from Coq, beside random traces of the real one
  simulator   random runs of the library, compared with a slow model and checked by the audit
  library     the library's own tests, in manual time and on real threads
  loom        every order in which threads can meet
  sessions    core's tests of sessions that share a state
  store       the library's tests over a store that fails
  folder      crates/shared: everything but the processes
  processes   crates/shared: real processes, killed and stopped
  hints       the tests of crates/hints
  middleware  the tests of the middleware for reqwest
  command     the command's tests: the real binary, real processes

Works on a copy of the last commit, in target/breaks. All breaks take an hour. `break_tests.py WORD…` runs the breaks
of the file called WORD, or with WORD in their name. `break_tests.py --check` builds nothing: it checks that the text
of every break still occurs exactly once in its file. Exit code 1 if too few means catch a break, or a text is not there.
"""

import os
import signal
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent
TREE = ROOT / "target" / "breaks" / "tree"


class Break(NamedTuple):
    group: str
    name: str
    file: str
    good: str
    bad: str
    means: list
    least: int


NEXTEST = "cargo nextest run --locked --status-level none --final-status-level none -p"
LIBRARY = f"{NEXTEST} strict-rate-limiter --features full"
SHARED = f"{NEXTEST} strict-rate-limiter-shared"
LOOM = ("env RUSTFLAGS='--cfg interleavings' cargo test --locked --release --quiet --target-dir target/interleavings"
        " -p strict-rate-limiter --test interleavings")
# The build of each means, and the command that fails when it catches a break.
MEANS = {
    "oracle": (f"{NEXTEST} strict-rate-limiter-core --no-run", f"{NEXTEST} strict-rate-limiter-core"),
    "model": ("cargo build --locked --quiet --release --workspace --features strict-rate-limiter/full --example trace",
              "proof/check 5000"),
    "simulator": ("cargo build --locked --quiet --release -p sim", "target/release/sim --seconds 30"),
    "library": (f"{LIBRARY} --no-run", LIBRARY),
    "loom": (f"{LOOM} --no-run", LOOM),
    "sessions": (f"{NEXTEST} strict-rate-limiter-core --no-run", f"{NEXTEST} strict-rate-limiter-core --test sessions"),
    "store": (f"{LIBRARY} --no-run", f"{LIBRARY} --test store"),
    "folder": (f"{SHARED} --no-run", f"{SHARED} --test folder --test fork"),
    "processes": (f"{SHARED} --no-run", f"{SHARED} --test processes"),
    "hints": (f"{NEXTEST} strict-rate-limiter-hints --no-run", f"{NEXTEST} strict-rate-limiter-hints"),
    "middleware": (f"{NEXTEST} strict-rate-limiter-reqwest --no-run", f"{NEXTEST} strict-rate-limiter-reqwest"),
    "command": (f"{NEXTEST} ratelimit-cli --no-run", f"{NEXTEST} ratelimit-cli"),
}
# More than each takes. A hang counts as a catch.
PATIENCE_S = {"oracle": 40, "model": 90, "simulator": 80, "library": 60, "loom": 150, "hints": 40, "middleware": 60,
              "command": 240, "sessions": 40, "store": 60, "folder": 40, "processes": 90}


def read_breaks() -> list:
    breaks = []
    for path in sorted((ROOT / "breaks").glob("*.toml")):
        told = tomllib.loads(path.read_text())
        for each in told["break"]:
            breaks.append(Break(path.stem, **{"means": told["means"], "least": told["least"], **each}))
    return breaks


def misplaced(breaks: list, tree: Path) -> list:
    """The breaks whose good text does not occur exactly once in its file."""
    return [f"{each.group}: {each.name}: {each.file} has the text {times} times"
            for each in breaks
            if (times := (tree / each.file).read_text().count(each.good) if (tree / each.file).is_file() else 0) != 1]


def catches(means: str) -> bool:
    """Whether its command fails or hangs."""
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
    words = sys.argv[1:]
    if words == ["--check"]:
        wrong = misplaced(read_breaks(), ROOT)
        print(*wrong, sep="\n", end="\n" if wrong else "")
        return 1 if wrong else 0
    breaks = [each for each in read_breaks()
              if not words or any(word == each.group or word in each.name for word in words)]
    if TREE.exists():
        subprocess.run(["git", "-C", TREE, "fetch", "--quiet", ROOT, "HEAD"], check=True)
        subprocess.run(["git", "-C", TREE, "reset", "--quiet", "--hard", "FETCH_HEAD"], check=True)
    else:
        subprocess.run(["git", "clone", "--quiet", ROOT, TREE], check=True)
    for means in MEANS:
        if any(means in each.means for each in breaks) and catches(means):
            sys.exit(f"{means} fails where nothing is broken")
    if wrong := misplaced(breaks, TREE):
        sys.exit("\n".join(wrong))
    missed = 0
    print("| break | caught by |\n|---|---|", flush=True)
    for each in breaks:
        path = TREE / each.file
        text = path.read_text()
        path.write_text(text.replace(each.good, each.bad))
        try:
            caught = [means for means in each.means if catches(means)]
        except subprocess.CalledProcessError as error:
            sys.exit(f"{each.name}: it does not build: {error.stderr.decode()[-2000:]}")
        finally:
            path.write_text(text)
        missed += len(caught) < each.least
        print(f"| {each.name} | {', '.join(caught) or 'nothing'} |", flush=True)
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
