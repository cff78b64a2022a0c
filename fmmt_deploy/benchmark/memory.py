"""Peak memory of one engine, measured in a process of its own: this module, run with `python -m`."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
from pathlib import Path

from fmmt_deploy.benchmark.choices import Choice
from fmmt_deploy.bundle.precisions import text_from_precisions
from fmmt_deploy.errors import FmmtError

__all__ = ["peak_bytes"]


def peak_bytes(bundle: Path, choice: Choice, threads: int, cache: Path | None = None) -> int:
    """Largest resident memory, not counting a GPU's, while a process opens a bundle and answers its self-test.

    Raises:
        FmmtError: That process failed.
    """
    command = [
        sys.executable,
        "-m",
        __name__,
        str(bundle),
        choice.kind,
        text_from_precisions(choice.precisions),
        str(threads),
        *([str(cache)] if cache else []),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise FmmtError(f"Measuring the memory of {choice.name} failed.", why=done.stderr.strip()[-500:])
    return int(json.loads(done.stdout))


def _main(bundle: str, kind: str, precision: str, threads: str, *cache: str) -> None:
    from fmmt_deploy.benchmark.choices import choice_from_option
    from fmmt_deploy.bundle.selftest import self_test_of
    from fmmt_deploy.bundle.store import Bundle
    from fmmt_deploy.engines.load import open_engines

    opened = Bundle.open(Path(bundle), verify=False)
    choice = choice_from_option(f"{kind}:{precision}", opened.manifest.architecture)
    folder = Path(cache[0]) if cache else None
    with open_engines(opened, choice.kind, choice.precisions, int(threads), folder) as engines:
        for graph, stage in self_test_of(opened).items():
            engines[graph].run(stage.inputs)
    json.dump(_own_peak_bytes(), sys.stdout)


def _own_peak_bytes() -> int:
    status = Path("/proc/self/status")
    if status.is_file():  # unlike ru_maxrss, it forgets the process that this one was forked from
        (line,) = (line for line in status.read_text().splitlines() if line.startswith("VmHWM:"))
        return 1024 * int(line.split()[1])
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak


if __name__ == "__main__":
    _main(*sys.argv[1:])
