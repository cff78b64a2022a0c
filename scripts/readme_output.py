"""Runs the demo and puts what it printed into README.md, between its two markers."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
LEFT_OUT = (
    "Where the time goes",
    "Which nodes compute in which type",
    "The largest tensors",
    "faces: real ÷ computed",
    "confusion",
)
"""First words of tables that the README does without."""

BEGIN, END = "<!-- demo output: begin -->", "<!-- demo output: end -->"


def shortened(printed: str) -> str:
    """The demo's output without what a reader can do without: the longest tables, the ends of raw answers."""
    for title in LEFT_OUT:
        printed = re.sub(rf"^{title}.*?\n\n", "", printed, flags=re.DOTALL | re.MULTILINE)
    steps = re.split(r"\n(?=\$ )", printed.strip())
    kept = [step for step in steps if not step.startswith("$ fmmt inspect")]
    lines = "\n\n".join(step.strip() for step in kept).replace(f"{ROOT}/", "").splitlines()
    return "\n".join(line if len(line) <= 150 or line.startswith("$ ") else line[:147] + "…" for line in lines)


def main() -> None:
    """Refreshes README.md."""
    printed = subprocess.run([ROOT / "examples" / "demo.sh"], capture_output=True, text=True, check=True).stdout
    readme = ROOT / "README.md"
    before, rest = readme.read_text(encoding="utf-8").split(BEGIN)
    after = rest.split(END)[1]
    readme.write_text(f"{before}{BEGIN}\n```text\n{shortened(printed)}\n```\n{END}{after}", encoding="utf-8")


if __name__ == "__main__":
    main()
