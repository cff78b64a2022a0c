"""The demo, made once."""

import pytest

from fmmt_deploy.demo import DemoPaths, make_demo


@pytest.fixture(scope="session")
def demo(tmp_path_factory: pytest.TempPathFactory) -> DemoPaths:
    return make_demo(tmp_path_factory.mktemp("demo"))
