"""Makes the demo's checkpoints and data set: everything the published release has, tiny, and made by code."""

from __future__ import annotations

from pathlib import Path

from fmmt_deploy.architecture import PlmKind
from fmmt_deploy.demo.paths import DemoPaths, demo_paths

__all__ = ["make_demo"]

AUDIO, VISION = (14, 24), (6, 16)
"""Rows and columns of the features."""

DIALOGUES = {"test": 64, "train": 40, "val": 24}
"""Of every split; what is said, heard and seen in one is in no other."""


def make_demo(directory: Path, plm: PlmKind = "roberta", seed: int = 0) -> DemoPaths:
    """Writes checkpoints and data in the published formats; needs the `torch` extra.

    Args:
        directory: Where to; made if absent, files of an earlier demo are replaced.
        plm: Which language model's names, formats and tokenizer.
        seed: For other dialogues, faces and weights.
    """
    from fmmt_deploy.demo.checkpoints import write_checkpoints
    from fmmt_deploy.demo.dataset import write_split
    from fmmt_deploy.demo.story import Run, make_story, runs_of

    paths, splits = demo_paths(directory, plm), {}
    said: set[Run] = set()
    for split, dialogues in DIALOGUES.items():
        story = make_story(split, dialogues, VISION[0], seed, said)
        said.update(*map(runs_of, story))
        splits[split] = write_split(paths.data, split, story, audio=AUDIO, vision=VISION, seed=seed)
    write_checkpoints(paths, plm, splits["train"], seed)
    return paths
