"""The demo catalog: one small base and its experts, trained from scratch (design: docs/demo-catalog.md)."""

from __future__ import annotations

from simmerge_core.demo.building import build
from simmerge_core.demo.describing import describe
from simmerge_core.demo.presets import PRESETS, DemoPreset

__all__ = ["PRESETS", "DemoPreset", "build", "describe"]
