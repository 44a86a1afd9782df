"""Every example runs, to its end. Time is real here, and short."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
import unittest
from pathlib import Path

from async_rate_limiter import RateLimiter

EXAMPLES = sorted((Path(__file__).parent.parent / "examples").glob("*.py"))

# What some examples use and the native limiter may not have yet.
NEEDS = {
    "flask_threads.py": "__enter__",
    "llm_client.py": "paused_for",
}

LIBRARIES = ("aiohttp", "flask", "httpx", "requests")


def lacks(example: Path) -> str | None:
    """What this Python or this limiter lacks to run the example."""
    for library in LIBRARIES:
        is_imported = re.search(rf"^(import|from) {library}\b", example.read_text(), re.MULTILINE)
        if is_imported and importlib.util.find_spec(library) is None:
            return f"needs {library}"
    need = NEEDS.get(example.name)
    return None if need is None or hasattr(RateLimiter, need) else f"needs RateLimiter.{need}"


class Examples(unittest.TestCase):
    def test_every_example_runs(self) -> None:
        self.assertGreaterEqual(len(EXAMPLES), 8)
        for example in EXAMPLES:
            with self.subTest(example.name):
                reason = lacks(example)
                if reason is not None:
                    self.skipTest(reason)
                ran = subprocess.run([sys.executable, example], capture_output=True, text=True)
                self.assertEqual((ran.returncode, ran.stderr), (0, ""), ran.stderr)
                self.assertNotEqual(ran.stdout, "")

    def test_no_call_of_the_model_is_refused(self) -> None:
        example = next(each for each in EXAMPLES if each.name == "llm_client.py")
        reason = lacks(example)
        if reason is not None:
            self.skipTest(reason)
        ran = subprocess.run([sys.executable, example], capture_output=True, text=True)
        self.assertRegex(ran.stdout, r"^80 calls in .* 0 refused; \d+ tokens used of \d+ reserved$")
