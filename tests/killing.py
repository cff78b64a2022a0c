"""Programs that kill themselves at the n-th call that changes the file system: what does each n leave behind?

Such a program is code for a process of its own. It gets a path and n as its arguments, and does within
`deadly(n, …)` what is to be cut short.
"""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from pkgutil import resolve_name
from typing import Any
from unittest.mock import patch

REPOSITORY = Path(__file__).parents[1]
NEVER = -1


@contextmanager
def deadly(call: int, *names: str) -> Iterator[None]:
    """Kills this process just before the n-th call of some functions, or prints how many calls there were.

    Args:
        call: n, from 1 on, or `NEVER`.
        names: Of the functions, dotted.
    """
    calls = 0

    def counted(function: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            nonlocal calls
            calls += 1
            if calls == call:
                os.kill(os.getpid(), signal.SIGKILL)
            return function(*args, **kwargs)

        return wrapped

    with ExitStack() as patched:
        for name in names:
            patched.enter_context(patch(name, counted(resolve_name(name))))
        yield
    sys.stdout.write(str(calls))


def count_calls(program: str, path: Path) -> int:
    """How many calls the program makes where nothing kills it."""
    done = _run(program, path, NEVER)
    assert done.returncode == 0, done.stderr
    return int(done.stdout)


def kill(program: str, path: Path, call: int) -> None:
    """Runs the program up to its n-th call."""
    done = _run(program, path, call)
    assert done.returncode == -signal.SIGKILL, done.stderr


def _run(program: str, path: Path, call: int) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", program, str(path), str(call)]
    return subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
