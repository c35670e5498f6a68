"""Figures: drawn from the report, the same bytes each time, and what is drawn follows the data."""

from __future__ import annotations

import itertools
import struct
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from simmerge_core.analysis import figures

PNG = b"\x89PNG\r\n\x1a\n"


def size(content: bytes) -> tuple[int, int]:
    """Width and height from the PNG header."""
    assert content.startswith(PNG)
    return struct.unpack(">II", content[16:24])


def bars(values: dict[tuple[str, str], float | None]) -> pl.DataFrame:
    rows = [{"task": t, "method": m, "gap_closed": v} for (t, m), v in values.items()]
    return pl.DataFrame(rows, schema={"task": pl.String, "method": pl.String, "gap_closed": pl.Float64})


@pytest.fixture
def features() -> pl.DataFrame:
    rng = np.random.default_rng(0)
    ids = [f"{d}-{n}" for d in ("code", "math") for n in (1, 2, 3)]
    return pl.DataFrame(
        [
            {
                "a": a,
                "b": b,
                "a_domain": a[:4],
                "b_domain": b[:4],
                "weight_cosine": 0.9,
                "kl_ab_mean": float(rng.uniform(0.1, 2)),
            }
            for a, b in itertools.permutations(ids, 2)
        ]
    )


def test_bars_are_the_same_bytes_twice_and_follow_the_data() -> None:
    values = {
        ("math", "simmerge"): 60.0,
        ("math", "linear"): -10.0,
        ("rag", "simmerge"): 120.0,
        ("rag", "linear"): None,
    }
    frame = bars(values)
    content = figures.gap_closed_bars(frame, methods=["linear", "simmerge"], oracle=None)
    assert content == figures.gap_closed_bars(frame.reverse(), methods=["linear", "simmerge"], oracle=None)
    assert content != figures.gap_closed_bars(
        bars(values | {("math", "linear"): 10.0}), methods=["linear", "simmerge"], oracle=None
    )
    assert size(content)[0] >= 1200
    assert b"Software" not in content


def test_user_settings_do_not_change_the_bytes(features: pl.DataFrame) -> None:
    import matplotlib as mpl

    content = figures.similarity_heat_map(features)
    with mpl.rc_context({"font.size": 30, "image.cmap": "gray", "savefig.dpi": 30}):
        assert figures.similarity_heat_map(features) == content


def test_heat_map_leaves_unknown_pairs_blank_and_takes_a_single_domain(features: pl.DataFrame) -> None:
    assert size(figures.similarity_heat_map(features.filter(pl.col("a") != "code-1")))
    assert size(
        figures.similarity_heat_map(features.filter((pl.col("a_domain") == "code") & (pl.col("b_domain") == "code")))
    )


@pytest.mark.parametrize("m", [2, 3, 7])
def test_confusion_matrix_is_drawn_for_any_number_of_actions(m: int) -> None:
    names = ["linear", "slerp", "ties", "task_arithmetic", "norm_balanced", "slerp@0.3", "slerp@0.7"][:m]
    counts = np.zeros((m, m))
    assert size(figures.confusion_matrix(counts, names))
    counts[0, 0], counts[1, 0] = 3, 1.5
    assert figures.confusion_matrix(counts, names) == figures.confusion_matrix(counts.tolist(), names)


def test_deltas_and_lines_are_drawn_with_undefined_values() -> None:
    frame = pl.DataFrame(
        {
            "task": ["math"] * 2,
            "method": ["simmerge", "linear"],
            "delta_expert": [-10.0, -30.0],
            "delta_aux": [40.0, None],
        }
    )
    assert size(figures.delta_markers(frame, methods=["simmerge", "linear", "absent"]))
    lines = {"simmerge": {2: (-10.0, 30.0), 3: (-12.0, 20.0)}, "linear": {2: (-20.0, 10.0)}}
    assert figures.merge_size_lines(lines) == figures.merge_size_lines(lines)


def test_figures_are_written_under_their_names(tmp_path: Path) -> None:
    paths = figures.write_figures({"one": PNG, "two": PNG}, tmp_path / "report")
    assert [p.name for p in paths] == ["one.png", "two.png"]
    assert all(p.read_bytes() == PNG for p in paths)


def test_a_narrowed_figure_keeps_its_shape_and_is_never_enlarged() -> None:
    wide = figures.confusion_matrix([[1.0, 0.0], [0.0, 1.0]], ["linear", "slerp"])
    width, height = size(wide)
    half = figures.narrowed(wide, width=width // 2)
    assert size(half) == (width // 2, pytest.approx(height / 2, abs=1))
    assert size(figures.narrowed(wide, width=2 * width)) == (width, height)
    assert figures.narrowed(wide, width=width // 2) == half
