"""Fixtures of the analysis tests."""

from __future__ import annotations

import pytest
from analysis_world import World, make_world


@pytest.fixture
def world() -> World:
    return make_world()
