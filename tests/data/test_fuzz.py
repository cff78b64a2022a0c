"""Bounded fuzzing: whatever the bytes, a reader returns or raises an error of ours. Seeds are fixed, so runs repeat."""

import io
import pickle
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from fmmt_deploy.data.dataset import read_data
from fmmt_deploy.data.faces import read_face
from fmmt_deploy.data.pickles import read_arrays, read_pickle
from fmmt_deploy.data.text import tokenizer_json
from fmmt_deploy.errors import FmmtError
from tests.data.published import architecture, copy_published, write_jsonl
from tests.golden import GOLDEN

TIMES = 150


def mutations(whole: bytes, seed: int, times: int = TIMES) -> Iterator[bytes]:
    """Flip, overwrite, cut out, repeat, insert, truncate."""
    draw = np.random.default_rng(seed)
    for _ in range(times):
        blob = bytearray(whole)
        for _ in range(int(draw.integers(1, 5))):
            start = int(draw.integers(0, max(len(blob), 1)))
            length = int(draw.integers(1, 9))
            match int(draw.integers(0, 6)):
                case 0 if start < len(blob):
                    blob[start] ^= 1 << int(draw.integers(0, 8))
                case 1:
                    blob[start : start + length] = draw.bytes(length)
                case 2:
                    del blob[start : start + length]
                case 3:
                    blob[start:start] = blob[start : start + length * 4]
                case 4:
                    blob[start:start] = draw.bytes(length)
                case _ if draw.integers(0, 4) == 0:
                    del blob[start:]
        yield bytes(blob)


def survives(read: Callable[[], object]) -> bool:
    try:
        read()
    except FmmtError:
        return False
    return True


def pickles() -> dict[str, bytes]:
    arrays = {"a": np.arange(6.0), "b": ["x", (1, 2.5)], "c": {1, 2}}
    state = {"w": torch.arange(6.0).reshape(2, 3), "b": torch.zeros(2, dtype=torch.bfloat16)}
    zipped, legacy, module = io.BytesIO(), io.BytesIO(), io.BytesIO()
    torch.save(state, zipped)
    torch.save(state, legacy, _use_new_zipfile_serialization=False)
    torch.save(torch.nn.Linear(2, 2), module, _use_new_zipfile_serialization=False)
    plain = {f"protocol {protocol}": pickle.dumps(arrays, protocol=protocol) for protocol in range(6)}
    return plain | {"zip": zipped.getvalue(), "legacy": legacy.getvalue(), "module": module.getvalue()}


@pytest.mark.parametrize("kind", list(pickles()))
def test_mutated_pickles(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "x"
    outcomes = set()
    for blob in mutations(pickles()[kind], 1, 3 * TIMES):
        path.write_bytes(blob)
        outcomes.add(survives(lambda: read_pickle(path)))
        survives(lambda: read_arrays(path))
    assert False in outcomes


def test_random_opcodes(tmp_path: Path) -> None:
    draw = np.random.default_rng(2)
    codes = bytes(range(0x28, 0x98))
    path = tmp_path / "x"
    for _ in range(1500):
        path.write_bytes(bytes(draw.choice(list(codes), 30).tolist()) + b".")
        survives(lambda: read_pickle(path))


def test_mutated_checkpoint_archive(tmp_path: Path) -> None:
    whole = next((GOLDEN / "roberta/pretrained_model").rglob("unimodal_model_V.pt")).read_bytes()
    path = tmp_path / "x.pt"
    ends = whole[-20_000:]  # most of the file is numbers; its directory is at the end
    for blob in mutations(ends, 3, TIMES // 3):
        path.write_bytes(whole[:-20_000] + blob)
        survives(lambda: read_pickle(path))
    for blob in mutations(whole[:12_000], 4, TIMES // 3):
        path.write_bytes(blob + whole[12_000:])
        survives(lambda: read_pickle(path))


@pytest.mark.parametrize(
    "name",
    [
        "meld/test_sent_emo.csv",
        "meld/test_text.json",
        "preprocess_data/T+A+V/test_utt_profile.json",
        "preprocess_data/T+A+V/test_facseqs_160_paths_final.json",
        "preprocess_data/T+A+V/meld_test_audio_utt.pkl",
    ],
)
def test_mutated_published_files(tmp_path: Path, name: str) -> None:
    root = copy_published(tmp_path / "x")
    path = root / name
    whole = path.read_bytes()
    outcomes = set()
    for blob in mutations(whole, 5, TIMES // 2):
        path.write_bytes(blob)
        outcomes.add(survives(lambda: read_data(root, "test", architecture())))
    assert False in outcomes


def test_mutated_dt(tmp_path: Path) -> None:
    whole = next((GOLDEN / "roberta").rglob("*.dt")).read_bytes()
    path = tmp_path / "x.dt"
    for blob in mutations(whole, 6, TIMES // 2):
        path.write_bytes(blob)
        survives(lambda: read_data(path, "test", architecture(), GOLDEN / "roberta"))


def test_mutated_dialogues_and_features(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path)
    whole, features = path.read_bytes(), (tmp_path / "a.npy").read_bytes()
    for blob in mutations(whole, 7):
        path.write_bytes(blob)
        survives(lambda: read_data(path, "test", architecture()))
    path.write_bytes(whole)
    outcomes = set()
    for blob in mutations(features[:128], 8, 2 * TIMES):
        (tmp_path / "a.npy").write_bytes(blob + features[128:])
        outcomes.add(survives(lambda: read_data(path, "test", architecture())))
    assert outcomes == {True, False}


def test_mutated_faces(tmp_path: Path) -> None:
    whole = next((GOLDEN / "roberta/faces").glob("*.jpg")).read_bytes()
    path = tmp_path / "x.jpg"
    outcomes = set()
    for blob in mutations(whole, 9):
        path.write_bytes(blob)
        outcomes.add(survives(lambda: read_face(path)))
    assert outcomes == {True, False}


@pytest.mark.parametrize("name", ["vocab.json", "merges.txt"])
def test_mutated_tokenizers(tmp_path: Path, name: str) -> None:
    folder = GOLDEN / "roberta/pretrained_model/roberta-large"
    for other in ("vocab.json", "merges.txt"):
        (tmp_path / other).write_bytes((folder / other).read_bytes())
    for blob in mutations((folder / name).read_bytes(), 10, TIMES // 3):
        (tmp_path / name).write_bytes(blob)
        survives(lambda: tokenizer_json(tmp_path, "roberta"))
