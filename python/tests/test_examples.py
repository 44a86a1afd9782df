"""Every example runs, to its end. Time is real here, and short."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
import unittest
from pathlib import Path

EXAMPLES = sorted((Path(__file__).parent.parent / "examples").glob("*.py"))


class Examples(unittest.TestCase):
    def test_every_example_runs(self) -> None:
        self.assertGreaterEqual(len(EXAMPLES), 4)
        for example in EXAMPLES:
            with self.subTest(example.name):
                if "aiohttp" in example.read_text() and importlib.util.find_spec("aiohttp") is None:
                    self.skipTest("needs aiohttp")
                ran = subprocess.run([sys.executable, example], capture_output=True, text=True)
                self.assertEqual((ran.returncode, ran.stderr), (0, ""), ran.stderr)
                self.assertNotEqual(ran.stdout, "")
