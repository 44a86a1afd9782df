"""Random programs in child processes, from a fresh seed: see `fuzz.py`. Time is real here.

FUZZ_SECONDS lengthens it (45 unless given); FUZZ_WITHOUT leaves out, as in "deep,signals".
"""

from __future__ import annotations

import os
import sys
import unittest

from .fuzz import Fuzzer, Options, fresh


@unittest.skipUnless(sys.platform == "linux", "forks, and uses signals")
class RandomPrograms(unittest.TestCase):
    def test_no_program_crashes_hangs_loses_a_task_or_breaks_a_window(self) -> None:
        seconds = float(os.environ.get("FUZZ_SECONDS", "45"))
        without = [name for name in os.environ.get("FUZZ_WITHOUT", "").split(",") if name]
        fuzzer = Fuzzer(Options(fresh(), seconds, without=without), quiet=True)
        findings = fuzzer.run()
        self.assertGreater(fuzzer.programs, 0)
        if findings:
            texts = "\n".join(finding.text() for finding in findings)
            self.fail(f"\nfrom seed {fuzzer.options.seed}:\n{texts}")
