"""One synthetic labelled catalog for the tests of this folder."""

from __future__ import annotations

import pytest
from experiments_world import WorldData, make_data


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> WorldData:
    """Read-only by agreement; selectors that tests train are kept in its folder."""
    return make_data(tmp_path_factory.mktemp("experiments"))
