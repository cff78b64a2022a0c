"""Typed graphs that several tests look at."""

from collections.abc import Callable

import pytest

from fmmt_deploy.bundle.store import Bundle
from tests.calibration.talk import Talk, write_talk
from tests.calibration.typed import TypedFiles


@pytest.fixture(scope="session")
def typed_file(tiny_bundle: Callable[[str], Bundle], tmp_path_factory: pytest.TempPathFactory) -> TypedFiles:
    return TypedFiles(tiny_bundle, tmp_path_factory.mktemp("typed"))


@pytest.fixture(scope="session")
def talk(tmp_path_factory: pytest.TempPathFactory) -> Talk:
    return write_talk(tmp_path_factory.mktemp("talk"))
