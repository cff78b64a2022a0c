"""Makes the demo's files: `python -m fmmt_deploy.demo DIRECTORY`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from fmmt_deploy.demo.make import make_demo

__all__ = ["main"]


def main(arguments: list[str] | None = None) -> None:
    """Reads the command line and makes the demo."""
    parser = argparse.ArgumentParser(prog="python -m fmmt_deploy.demo", description=main.__doc__)
    parser.add_argument("directory", type=Path, help="where to")
    parser.add_argument("--plm", choices=("roberta", "bert"), default="roberta", help="which language model")
    parser.add_argument("--seed", type=int, default=0, help="for other dialogues, faces and weights")
    options = parser.parse_args(arguments)
    paths = make_demo(options.directory, options.plm, options.seed)
    sys.stdout.write(f"checkpoint  {paths.checkpoint}\nlanguage    {paths.plm}\ndata        {paths.data}\n")


if __name__ == "__main__":
    main()
