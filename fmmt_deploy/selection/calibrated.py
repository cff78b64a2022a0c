"""Whether a bundle was calibrated on the data it is judged on: that would be judging by heart."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from fmmt_deploy.bundle.precisions import Precisions
from fmmt_deploy.bundle.store import Bundle
from fmmt_deploy.data.content import content_of, digests_from_text, distinctive, sharing
from fmmt_deploy.types import DataSet

__all__ = ["RECEIPTS", "overlap_warnings"]

RECEIPTS = "receipts/calibration-*.json"
"""What `fmmt calibrate` leaves in a bundle; somewhere in each, `digests` say what it was calibrated on."""


def overlap_warnings(bundle: Bundle, dataset: DataSet, precisions: Precisions | None = None) -> tuple[str, ...]:
    """Finds utterances that a bundle was calibrated on, by what they hold; a warning for those that have the same.

    Args:
        bundle: Its receipts are read.
        dataset: What it is going to be judged on.
        precisions: Of the graphs that are judged; default all that the bundle has.

    Raises:
        DataError: A face's file can't be read.
    """
    receipts = sorted(bundle.path.glob(RECEIPTS))
    if precisions is not None:
        used = {f"{graph}-{precision}" for graph, precision in precisions.items()}
        receipts = [path for path in receipts if _name(path) in used]
    if not receipts:
        return ()
    contents = content_of(dataset)
    own = distinctive(contents)
    warnings, found = [], dict[tuple[str, ...], list[str]]()
    for path in receipts:
        try:
            known = [digests_from_text(text) for text in _digests(json.loads(path.read_text(encoding="utf-8")))]
        except (OSError, ValueError) as error:  # JSON and digests that are no such thing are ValueErrors
            warnings.append(f"{path.name} can't be read, so nothing says what was calibrated on: {error}")
            continue
        shared = sharing(contents, own & frozenset().union(*known))
        found.setdefault(tuple(content.utterance for content in shared), []).append(_name(path))
    for utterances, names in found.items():
        if utterances:
            warnings.append(
                f"{len(utterances)} of {len(contents)} utterances were calibrated on ({', '.join(names)}): "
                "what is found on them looks better than it is; judge on another split"
            )
    return tuple(warnings)


def _digests(value: object) -> Iterator[str]:
    if isinstance(value, dict):
        for name, item in value.items():
            if name == "digests" and isinstance(item, str):
                yield item
            else:
                yield from _digests(item)
    elif isinstance(value, list):
        for item in value:
            yield from _digests(item)


def _name(path: Path) -> str:
    return path.stem.removeprefix("calibration-")
