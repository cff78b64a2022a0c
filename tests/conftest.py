"""Bundles that are made once a session, because making them takes seconds."""

import os
import signal
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

from fmmt_deploy.bundle.store import Bundle

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as a shell starts what runs in its background
    signal.signal(signal.SIGINT, signal.default_int_handler)
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # PyTorch's threads would wait busily for each other's slow steps

# Properties are tried on the same values each time: a red test is due to the change. `make fuzz` draws new ones.
settings.register_profile("same", derandomize=True)
settings.register_profile("new")
settings.load_profile("same")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with slow tests come first: of several workers none is left alone with them at the end."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


@pytest.fixture(scope="session", params=["roberta", "bert"])
def golden(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A `tests.models.Golden`."""
    from tests.models import make_golden  # imports PyTorch, which most tests don't need

    return make_golden(request.param, tmp_path_factory.mktemp(f"golden-{request.param}"))


@pytest.fixture(scope="session")
def tiny_bundle(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Bundle]:
    """Gives the bundle of a model of `tests.models.TINY`."""
    folder: Path = tmp_path_factory.mktemp("tiny")

    @cache
    def bundle(name: str) -> Bundle:
        from tests.models import export_tiny

        return export_tiny(name, folder / name)

    return bundle
