"""The queries of docs/queries.md that read from S3 run, and both engines agree with the data root."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from polars.testing import assert_frame_equal
from s3_server import S3Server

from simmerge_core.tables import STANDALONE_SCORES, DataRoot

pytestmark = pytest.mark.s3

PAGE = Path(__file__).parents[2] / "docs" / "queries.md"
BLOCKS = re.findall(r"^```py\n(.*?)^```", PAGE.read_text("utf-8"), re.S | re.M)


def test_engines_read_the_tables_in_place(s3: S3Server) -> None:
    root = DataRoot(s3.root)
    row = dict.fromkeys(STANDALONE_SCORES.schema)
    row |= {"fingerprint": "f", "benchmark": "b", "metric": "acc,none", "item_set": "A", "n": 10, "evaluation_key": "k"}
    for number, checkpoint in enumerate(("math-01", "code-01")):
        rows = [{**row, "seed": seed, "utility": 0.25 * number + 0.1 * seed} for seed in range(3)]
        frame = pl.DataFrame(rows, schema=dict(STANDALONE_SCORES.schema))
        root.write(STANDALONE_SCORES, frame, checkpoint=checkpoint, task="math")
    mean = pl.DataFrame(
        {"checkpoint": ["code-01", "math-01"], "task": ["math", "math"], "utility": [0.35, 0.1]}, strict=False
    )
    assert len(BLOCKS) == 2
    for block in BLOCKS:
        names: dict[str, Any] = {}
        exec(block.replace("s3://bucket/team/data", s3.root), names)
        assert_frame_equal(names["result"], mean, rel_tol=1e-9)
