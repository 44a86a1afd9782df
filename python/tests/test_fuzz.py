"""Random programs in child processes: see `fuzz.py`. Time is real here.

The seeds are the same each time, so that a change is told by its own faults; `python -m tests.fuzz`
takes fresh ones. FUZZ_SEED is the first (1 unless given), FUZZ_SECONDS lengthens it (30 unless
given), FUZZ_WITHOUT leaves out, as in "deep,signals".
"""

from __future__ import annotations

import os
import sys
import unittest

from .fuzz import Finding, Fuzzer, Options

ATTEMPTS = 10


@unittest.skipUnless(sys.platform == "linux", "forks, and uses signals")
class RandomPrograms(unittest.TestCase):
    def test_no_program_crashes_hangs_loses_a_task_or_breaks_a_window(self) -> None:
        seconds = float(os.environ.get("FUZZ_SECONDS", "30"))
        without = [name for name in os.environ.get("FUZZ_WITHOUT", "").split(",") if name]
        seed = int(os.environ.get("FUZZ_SEED", "1"))
        fuzzer = Fuzzer(Options(seed, seconds, without=without), quiet=True)
        findings = fuzzer.run()
        self.assertGreater(fuzzer.programs, 0)
        again = [finding for finding in findings if comes_again(finding, without)]
        for finding in findings:
            if finding not in again:
                # Threads and signals come at other moments each time.
                print(f"\nonce, and never again: {finding.text()}", file=sys.stderr)
        if again:
            texts = "\n".join(finding.text() for finding in again)
            self.fail(f"\nfrom seed {fuzzer.options.seed}:\n{texts}")


def comes_again(finding: Finding, without: list[str]) -> bool:
    """Whether its program, tried again a few times, is found guilty again."""
    return any(
        Fuzzer(Options(finding.seed, runs=1, without=without), quiet=True).run()
        for _ in range(ATTEMPTS)
    )
