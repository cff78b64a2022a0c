"""What the published code computed on small data, in the published formats: the proof behind every claim of parity.

Contents: `roberta/` and `bert/`, each a data set, faces, pickled checkpoints and `expected.npz`. Weights are random,
texts and faces made by program; nothing of MELD or of the published weights is in here.
"""

from pathlib import Path

__all__ = ["GOLDEN"]

GOLDEN = Path(__file__).parent
