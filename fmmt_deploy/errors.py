"""Every error this package raises on purpose, and the exit code each one ends a command with.

```
FmmtError                      1   our own bug, unless a subclass says otherwise
├── UsageError                 2   the command line, or a combination of options, makes no sense
├── DataError                  2   a data set that can't be used as given (file, utterance, field)
├── EnvironmentProblem         3   something this machine lacks: a package, a GPU, disk space
├── ParityError                4   an engine does not compute what the reference computes
├── NotEquivalentError         5   weighted F1 or decisions differ from the reference's, or the data can't tell
├── SlowerError                6   slower than the baseline given
├── UnstableError              7   a measurement that never settled, or a training whose loss is no number
├── ArtefactError              8   a file that is stale, corrupt, hostile or of another schema
│   ├── CheckpointError        8   … a PyTorch checkpoint
│   └── BundleError            8   … a bundle
└── PrecisionError             9   the asked-for precision was not realised
```

A message is three short lines at most: what happened, why, and what to do next.
"""

from __future__ import annotations

__all__ = [
    "INTERRUPTED",
    "ArtefactError",
    "BundleError",
    "CheckpointError",
    "DataError",
    "EnvironmentProblem",
    "FmmtError",
    "NotEquivalentError",
    "ParityError",
    "PrecisionError",
    "SlowerError",
    "UnstableError",
    "UsageError",
]

INTERRUPTED = 130
"""Exit code after Ctrl-C."""


class FmmtError(Exception):
    """Base of all our errors.

    Args:
        what: One line that says what happened, with what was expected and what was found.
        why: The reason, if it is known and not already in `what`.
        fix: What the reader should do next.
        path: The file or folder it is about.
        tensor: The tensor it is about.
    """

    exit_code = 1

    def __init__(
        self, what: str, *, why: str = "", fix: str = "", path: object = None, tensor: str | None = None
    ) -> None:
        super().__init__(what)
        self.what, self.why, self.fix = what, why, fix
        self.path = None if path is None else str(path)
        self.tensor = tensor

    def __str__(self) -> str:
        return "\n".join(line for line in (self.what, self.why, self.fix) if line)


class UsageError(FmmtError):
    """The command line, or a combination of options, makes no sense."""

    exit_code = 2


class DataError(FmmtError):
    """A data set can't be used as given."""

    exit_code = 2


class EnvironmentProblem(FmmtError):  # noqa: N818 - EnvironmentError is a builtin
    """This machine lacks something: a package, a GPU, disk space."""

    exit_code = 3


class ParityError(FmmtError):
    """An engine does not compute what the reference computes."""

    exit_code = 4


class NotEquivalentError(FmmtError):
    """Weighted F1 or decisions differ from the reference's by more than allowed, or the data can't tell."""

    exit_code = 5


class SlowerError(FmmtError):
    """Slower than the baseline given."""

    exit_code = 6


class UnstableError(FmmtError):
    """A measurement that never settled, or a training whose loss is no number."""

    exit_code = 7


class ArtefactError(FmmtError):
    """A file is stale, corrupt, hostile or of another schema."""

    exit_code = 8


class CheckpointError(ArtefactError):
    """A PyTorch checkpoint can't be read, or is not what was asked for."""


class BundleError(ArtefactError):
    """A bundle is incomplete, altered, or of another schema."""


class PrecisionError(FmmtError):
    """The asked-for precision was not realised."""

    exit_code = 9
