"""A fuzzer of the Python face: random programs that follow from their seeds, in child processes.

    python -m tests.fuzz --seconds 60            # from python/; fresh seeds
    python -m tests.fuzz --seed 17 --runs 1      # one program again; --loud shows its steps
    python -m tests.fuzz --without deep          # leaves an ingredient out, so that others show
    python -m tests.fuzz --only interrupted      # these alone; --list names all of them
    python -m tests.fuzz --stand-in              # is it CPython's own? A limiter of plain Python

A crash of the interpreter, a hang, a SystemError, a lost task, a broken window or an object that
outlives its program is a finding. Each is tried again alone, and printed with the way to repeat it.
`fuzz_chaos.py`, `fuzz_harm.py` and `fuzz_depth.py` have the programs in which anything goes,
`fuzz_clean.py` and `fuzz_outside.py` those that look at themselves, `fuzz_pool.py` and
`fuzz_values.py` what they are made of, and `fuzz_child.py` runs them.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

HERE = Path(__file__).resolve().parent.parent
BATCH = 100
# CPython's own, up to 3.11: Python code that the collector calls while a RecursionError is made.
EXCUSED = "Cannot recover from stack overflow"


@dataclass
class Finding:
    """What went wrong, in which program."""

    what: str
    seed: int
    repeat: str
    # Seconds and programs until it was first seen.
    after: float = 0
    programs: int = 0
    times: int = 1
    detail: str = ""

    def text(self) -> str:
        return (
            f"{self.what}\n    {self.times} times, first after {self.programs} programs and"
            f" {self.after:.1f} s, by seed {self.seed}\n    again: {self.repeat}\n{self.detail}"
        )


@dataclass
class Options:
    seed: int
    seconds: float = 60
    runs: int = 0
    without: list[str] = field(default_factory=list)
    only: list[str] = field(default_factory=list)
    hang: float = 60
    loud: bool = False
    stand_in: bool = False

    def switches(self) -> list[str]:
        switches = [f"--without={name}" for name in self.without]
        switches += ["--stand-in"] if self.stand_in else []
        return switches + [f"--only={name}" for name in self.only]

    def repeat(self, seed: int, runs: int) -> str:
        parts = ["python -m tests.fuzz", f"--seed {seed} --runs {runs}", *self.switches()]
        return " ".join(parts)


@dataclass
class Batch:
    """What a child did."""

    # The last program that began, if any.
    last: int | None = None
    begun: int = 0
    found: list[tuple[int, str]] = field(default_factory=list)
    # How it died, if it did.
    died: str | None = None
    errors: str = ""
    steps: list[str] = field(default_factory=list)


def child(options: Options, first: int, runs: int, until: float, loud: bool = False) -> Batch:
    """Runs programs in a process of their own, until a time."""
    command = [sys.executable, "-m", "tests.fuzz_child", str(first)]
    command += [str(runs), f"--hang={options.hang}", *options.switches()]
    command += ["--loud"] if loud else []
    batch = Batch()
    late = False
    with tempfile.TemporaryFile() as errors:
        process = subprocess.Popen(
            command, cwd=HERE, stdout=subprocess.PIPE, stderr=errors, start_new_session=True
        )
        assert process.stdout is not None
        # The child has a watchdog of its own, which tells where it hangs; this one is for a child
        # that has lost even that.
        alive = time.monotonic()
        over = threading.Event()

        def watchdog() -> None:
            while not over.wait(0.2):
                if time.monotonic() > alive + options.hang + 30:
                    process.kill()

        watcher = threading.Thread(target=watchdog, daemon=True)
        watcher.start()
        for raw in process.stdout:
            alive = time.monotonic()
            word, _, rest = raw.decode(errors="replace").strip().partition(" ")
            if word == "BEGIN":
                batch.last = int(rest)
                batch.begun += 1
                if time.monotonic() > until:
                    late = True
                    process.kill()
                    break
            elif word == "FOUND":
                seed, _, what = rest.partition(" ")
                batch.found.append((int(seed), what))
            elif word == "STEP":
                batch.steps.append(rest)
        process.stdout.close()
        status = process.wait()
        over.set()
        watcher.join()
        # What the child itself forked or left behind.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        errors.seek(0)
        batch.errors = errors.read().decode(errors="replace")[-200_000:]
    if late:
        return batch
    if "Timeout (" in batch.errors:
        batch.died = "hang"
    elif status < 0:
        batch.died = signal.Signals(-status).name
    elif status > 0:
        batch.died = f"exit code {status}"
    if "panicked at" in batch.errors and batch.last is not None:
        batch.found.append((batch.last, "panic: " + where(batch.errors, "panicked at")))
    return batch


def where(errors: str, word: str) -> str:
    """The line of the errors that has this word, without its numbers."""
    line = next((line for line in errors.splitlines() if word in line), "")
    return re.sub(r"0x[0-9a-f]+|'[^']*'", "", line).strip()[:160]


def kind_of(text: str) -> str:
    """What findings of the same kind have in common."""
    return re.sub(r"0x[0-9a-f]+|\d+(\.\d+)?(ns|ms|s)?|\[.*\]|<.*>", "N", text)[:120]


def tail(errors: str) -> str:
    lines = errors.splitlines()
    starts = [n for n, line in enumerate(lines) if line.startswith(("Fatal", "Timeout", "thread"))]
    shown = lines[starts[0] :][:14] if starts else lines[-6:]
    return "".join(f"    | {line}\n" for line in shown)


class Fuzzer:
    def __init__(self, options: Options, quiet: bool = False) -> None:
        self.options = options
        self.quiet = quiet
        self.findings: dict[str, Finding] = {}
        self.programs = 0
        self.excused = 0
        self.start = time.monotonic()

    def add(self, key: str, what: str, seed: int, repeat: str, detail: str = "") -> None:
        key = kind_of(key)
        if key in self.findings:
            self.findings[key].times += 1
            return
        after = time.monotonic() - self.start
        finding = Finding(what, seed, repeat, after, self.programs, detail=detail)
        self.findings[key] = finding
        if not self.quiet:
            print(f"FOUND {finding.text()}", flush=True)

    def died(self, batch: Batch, first: int) -> None:
        """Tries the program alone, to tell which step it was."""
        seed = first if batch.last is None else batch.last
        again = child(self.options, seed, 1, float("inf"), loud=True)
        if is_excused(batch) or is_excused(again):
            self.excused += 1
            return
        if again.died is None:
            runs = seed - first + 1
            what = f"{batch.died}{place(batch.errors)}: once, or only after others"
            self.add(what, what, seed, self.options.repeat(first, runs), tail(batch.errors))
            return
        steps = [step for step in again.steps if len(step.split()) == 2]
        step = steps[-1].split()[-1] if steps else "?"
        what = f"{again.died} in {step}{place(again.errors)}"
        # What the collector comes to does not depend on the step in which it comes.
        key = again.died + place(again.errors) if "collecting" in what else what
        detail = "".join(f"    step {step}\n" for step in again.steps[-8:]) + tail(again.errors)
        self.add(key, what, seed, self.options.repeat(seed, 1), detail)

    def run(self) -> list[Finding]:
        options = self.options
        seed = options.seed
        until = self.start + options.seconds if not options.runs else float("inf")
        end = seed + options.runs if options.runs else None
        while time.monotonic() < until and (end is None or seed < end):
            runs = BATCH if end is None else min(BATCH, end - seed)
            batch = child(options, seed, runs, until, options.loud)
            self.programs += batch.begun
            if options.loud:
                print("\n".join(batch.steps))
            for bad, what in batch.found:
                self.add(what, what, bad, options.repeat(bad, 1))
            if batch.died is not None:
                if options.runs == 1 and not is_excused(batch):
                    what = f"{batch.died}"
                    self.add(what, what, seed, options.repeat(seed, 1), tail(batch.errors))
                else:
                    self.died(batch, seed)
            if batch.last is None and batch.died is not None:
                break
            seed = (seed if batch.last is None else batch.last) + 1
        return list(self.findings.values())


def is_excused(batch: Batch) -> bool:
    """Whether it died of a fault of CPython's, or of the fuzzer's own signal that nobody caught."""
    own_signal = batch.died == "SIGINT" and "KeyboardInterrupt: a signal" in batch.errors
    return EXCUSED in batch.errors or own_signal


def place(errors: str) -> str:
    """The function that Python was in."""
    found = re.search(
        r"most recent call first\):\n(  Garbage-collecting\n)?  File .* in (.*)", errors
    )
    if found is None:
        return ""
    return f", {'collecting, ' if found[1] else ''}in {found[2]}()"


def main() -> int:
    from .fuzz_child import INGREDIENTS, PROGRAMS

    parser = argparse.ArgumentParser(description="fuzzes the Python package")
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--seed", type=int, help="the first seed; fresh unless given")
    parser.add_argument("--runs", type=int, default=0, help="this many programs, not by time")
    names = [*INGREDIENTS, *PROGRAMS]
    for switch, text in (("without", "leave this one out"), ("only", "this one, of the list")):
        parser.add_argument(f"--{switch}", action="append", default=[], choices=names, help=text)
    parser.add_argument("--hang", type=float, default=60, help="seconds until one counts as hung")
    parser.add_argument("--loud", action="store_true", help="print every step")
    text = "a limiter in plain Python in place of the package: what crashes then is CPython's"
    parser.add_argument("--stand-in", action="store_true", help=text)
    parser.add_argument("--list", action="store_true", help="name the ingredients and programs")
    given = parser.parse_args()
    if given.list:
        for name, what in {**INGREDIENTS, **PROGRAMS}.items():
            print(f"{name:14} {(what.__doc__ or '').strip().splitlines()[0:1]}")
        return 0
    seed = fresh() if given.seed is None else given.seed
    options = Options(seed, given.seconds, given.runs, given.without, given.only, given.hang)
    options.loud, options.stand_in = given.loud, given.stand_in
    print(f"seeds from {seed}", flush=True)
    fuzzer = Fuzzer(options)
    found = fuzzer.run()
    took = time.monotonic() - fuzzer.start
    print(f"{fuzzer.programs} programs in {took:.1f} s, {len(found)} kinds of findings")
    for finding in found:
        print(f"- {finding.text()}")
    return 1 if found else 0


def fresh() -> int:
    return int.from_bytes(os.urandom(4), "little") * 1000


if __name__ == "__main__":
    sys.exit(main())
