"""What the documents show is run. Time is real here, and short."""

from __future__ import annotations

import re
import subprocess
import sys
import unittest
from pathlib import Path

PYTHON = Path(__file__).parent.parent
GUIDE = PYTHON.parent / "docs" / "coming-from.md"


def blocks(document: Path) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```", document.read_text(), re.MULTILINE | re.DOTALL)


class Documents(unittest.TestCase):
    def run_block(self, block: str) -> str:
        ran = subprocess.run([sys.executable, "-c", block], capture_output=True, text=True)
        self.assertEqual((ran.returncode, ran.stderr), (0, ""), block)
        return ran.stdout

    def test_the_readme_runs(self) -> None:
        first, *others = blocks(PYTHON / "README.md")
        self.assertEqual(self.run_block(first), "did work\n" * 50)
        self.assertEqual(len(others), 1)
        for block in others:
            self.assertIn("Stats(", self.run_block(block))

    def test_our_side_of_the_guide_runs(self) -> None:
        if not GUIDE.exists():
            self.skipTest("the guide is not part of the source distribution")
        ours = [block for block in blocks(GUIDE) if "ours" in block.splitlines()[0]]
        self.assertEqual(len(ours), 3)
        call = "\nasync def call():\n    return 5\n"
        use = (
            "\nimport asyncio\nasync def use():\n"
            "    for name in ('fetch', 'heavy', 'decorated'):\n"
            "        if name in globals():\n"
            "            assert await globals()[name]() == 5\n"
            "    assert 'is_free' not in globals() or is_free()\n"
            "asyncio.run(use())\n"
        )
        self.assertEqual(self.run_block(ours[0]), "did work\n" * 2)
        for block in ours[1:]:
            self.run_block(call + block + use)
