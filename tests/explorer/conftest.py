"""One small run, and its page, serve all tests here."""

import pytest
from explored_run import Shown


@pytest.fixture(scope="session")
def shown(tmp_path_factory):
    return Shown(tmp_path_factory.mktemp("explored"))
