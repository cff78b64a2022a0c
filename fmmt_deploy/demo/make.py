"""Makes the demo's checkpoints and data set: everything the published release has, tiny, and made by code."""

from __future__ import annotations

from pathlib import Path

from fmmt_deploy.architecture import PlmKind
from fmmt_deploy.demo.paths import DemoPaths, demo_paths

__all__ = ["make_demo"]

AUDIO, VISION = (14, 24), (6, 16)
"""Rows and columns of the features."""

TRAIN_DIALOGUES, TEST_DIALOGUES = 24, 24


def make_demo(directory: Path, plm: PlmKind = "roberta", seed: int = 0) -> DemoPaths:
    """Writes checkpoints and data in the published formats; needs the `torch` extra.

    Args:
        directory: Where to; made if absent, files of an earlier demo are replaced.
        plm: Which language model's names, formats and tokenizer.
        seed: For other dialogues, faces and weights.
    """
    from fmmt_deploy.demo.checkpoints import write_checkpoints
    from fmmt_deploy.demo.dataset import write_split
    from fmmt_deploy.demo.story import make_story

    paths = demo_paths(directory, plm)
    splits = {
        split: write_split(
            paths.data, split, make_story(split, dialogues, VISION[0], seed), audio=AUDIO, vision=VISION, seed=seed
        )
        for split, dialogues in (("train", TRAIN_DIALOGUES), ("test", TEST_DIALOGUES))
    }
    write_checkpoints(paths, plm, splits["train"], seed)
    return paths
