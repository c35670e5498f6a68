"""What estimates leave in question is enough to find the best, however the errors fall."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from simmerge_core.planning import contenders
from simmerge_core.planning.contenders import Contenders, promising
from simmerge_core.planning.scoring import Prefixes


class _Utilities:
    """Stands for a scorer: the utility of a plan is that of its last step."""

    def plan_utility(self, plans: Prefixes) -> np.ndarray:
        return plans.utilities[:, -1]


@pytest.mark.parametrize("held", [4, 10_000])
@given(
    count=st.integers(1, 150),
    top=st.integers(1, 8),
    error=st.sampled_from([0.0, 0.4, 3.0, 100.0]),
    seed=st.integers(0, 100),
)
def test_the_best_are_those_of_scoring_all(held: int, count: int, top: int, error: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, 30, size=count).astype(float)  # few values: ties
    estimates = truth + error * rng.uniform(-1, 1, size=len(truth))
    row, added = np.arange(len(truth)), np.arange(len(truth)) + 1000
    asked: list[int] = []

    def exactly(rows: np.ndarray, added: np.ndarray) -> Prefixes:
        np.testing.assert_array_equal(added, rows + 1000)
        asked.extend(rows.tolist())
        n = len(rows)
        return Prefixes(
            np.stack([rows, added], axis=1), np.ones((n, 2)), np.zeros((n, 1), dtype=np.int64), truth[rows][:, None]
        )

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(contenders, "_HELD", held)
        collected = Contenders(_Utilities(), exactly, top=top, error=error + 1e-9)  # type: ignore[arg-type]
        for start in range(0, len(truth), 10):
            part = slice(start, start + 10)
            index = promising(estimates[part], top=top, error=error + 1e-9)
            collected.add(row[part][index], added[part][index], estimates[part][index])
        best = collected.best()
    expected = np.lexsort([row, -truth])[:top]  # equal plans by their ids
    np.testing.assert_array_equal(best.members[:, 0], expected)
    np.testing.assert_array_equal(best.utilities[:, 0], truth[expected])
    assert len(asked) == len(set(asked))
    if held > len(truth) and error == 0.0:
        assert len(asked) == int((truth >= truth[expected[-1]]).sum())  # nothing that was out of the question
