"""`--precision`, as text and as values."""

import shlex
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fmmt_deploy.bundle.manifest import PRECISIONS, graphs_of
from fmmt_deploy.bundle.precisions import adding_command, precisions_from_option, text_from_precisions
from fmmt_deploy.errors import UsageError
from tests.models import TINY

MODEL, UNIMODAL = TINY["roberta"], next(a for a in TINY.values() if a.modality == "V")


def test_one_for_all() -> None:
    assert precisions_from_option("fp16", MODEL) == {"swin": "fp16", "plm": "fp16", "fusion": "fp16"}
    assert precisions_from_option("bf16", UNIMODAL) == {"unimodal": "bf16"}


def test_graphs_not_named_are_float32() -> None:
    assert precisions_from_option("swin=fp16, plm=bf16", MODEL) == {"swin": "fp16", "plm": "bf16", "fusion": "fp32"}


@given(st.lists(st.sampled_from(PRECISIONS), min_size=3, max_size=3))
def test_round_trip(chosen: list) -> None:
    precisions = dict(zip(graphs_of(MODEL), chosen, strict=True))
    assert precisions_from_option(text_from_precisions(precisions), MODEL) == precisions


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("fp17", "no precision 'fp17'"),
        ("", "no precision ''"),
        ("swin=", "no precision ''"),
        ("face=fp16", "there is no graph 'face'"),
        ("unimodal=fp16", "this model has no graph 'unimodal'"),
        ("swin=fp16,swin=fp32", "named twice"),
        ("swin=fp16,", "no graph ''"),
    ],
)
def test_refusals(text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        precisions_from_option(text, MODEL)


def test_what_adds_a_precision_is_a_command_for_the_shell() -> None:
    command = adding_command(Path("my bundle"), ["swin", "plm"], "bf16")
    assert shlex.split(command) == ["fmmt", "cast", "-b", "my bundle", "--precision", "swin=bf16,plm=bf16"]
    calibrate = shlex.split(adding_command(Path("b"), ["swin"], "fp8"))
    assert calibrate == ["fmmt", "calibrate", "-b", "b", "--precision", "swin=fp8", "--data", "DIR"]
