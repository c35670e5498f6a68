"""What "cannot be told apart" leaves open, and means of coverage, against plain loops on hand-made predictions."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import polars as pl
import pytest
from experiments_world import WorldData

from simmerge_core.analysis.protocol import Direction
from simmerge_core.experiments.uncertainty import _mean, _same_rows, _told_apart
from simmerge_core.selector import TrainingRows
from simmerge_core.selector.calibration import Calibration
from simmerge_core.selector.conformal import Band
from simmerge_core.selector.prediction import Prediction

Key = tuple[str, str, str]


@dataclass(frozen=True)
class Told:
    """A selector whose networks say what is written down for each row."""

    says: dict[Key, np.ndarray]  # (members, actions)
    calibration: Calibration

    def predict(self, features: pl.DataFrame) -> Prediction:
        members = np.stack([self.says[key] for key in features.select("a", "b", "task").rows()], axis=1)
        spread = members.std(axis=0)
        return Prediction(members.mean(axis=0), spread, members, self.calibration.half_width(spread))


def _calibration(actions: int, *, same_pair: bool) -> Calibration:
    bands = tuple(Band(0.01 * (i + 1), 1.2, 50, 0.9) for i in range(actions))
    differences = (
        {"same_pair": Band(0.02, 1.5, 50, 0.9)} if same_pair else {"shared_checkpoint": Band(9.0, 9.0, 9, 0.9)}
    )
    return Calibration(0.9, bands, bands[0], differences)


def _keys(rows: TrainingRows) -> list[Key]:
    return rows.meta.select("a", "b", "task").rows()  # type: ignore[return-value]


def _expected(
    says: dict[Direction, dict[Key, np.ndarray]],
    labels: dict[str, dict[Key, np.ndarray]],
    width: Callable[[float, float, float], float],
) -> dict[str, float]:
    totals = dict.fromkeys(("mean_open", "holds_best", "chosen", "settled", "evaluate_all"), 0.0)
    count = 0
    for direction, by_row in says.items():
        for key, members in by_row.items():
            seen, true = labels[direction.chosen_on][key].tolist(), labels[direction.scored_on][key].tolist()
            voices = members.tolist()
            means = [sum(v[j] for v in voices) / len(voices) for j in range(len(seen))]
            spreads = [math.sqrt(sum((v[j] - means[j]) ** 2 for v in voices) / len(voices)) for j in range(len(seen))]
            chosen = means.index(max(means))
            left = []
            for j in range(len(seen)):
                leads = [v[chosen] - v[j] for v in voices]
                lead = sum(leads) / len(leads)
                deviation = math.sqrt(sum((x - lead) ** 2 for x in leads) / len(leads))
                halves = [1.2 * math.hypot(0.01 * (n + 1), spreads[n]) for n in (chosen, j)]
                if j == chosen or lead <= width(deviation, *halves):
                    left.append(j)
            tried = max(left, key=lambda j: (seen[j], -j))
            totals["mean_open"] += len(left)
            totals["holds_best"] += any(true[j] == max(true) for j in left)
            totals["chosen"] += true[chosen]
            totals["settled"] += true[tried]
            totals["evaluate_all"] += true[seen.index(max(seen))]
            count += 1
    return {name: total / count for name, total in totals.items()}


@pytest.fixture(scope="module")
def rows(data: WorldData) -> dict[Direction, TrainingRows]:
    """Rows of both item sets with rounded utilities, so that some are equally good; the second in another order."""
    found = {}
    for number, direction in enumerate(data.along):
        own = data.rows(data.units("extended", "both_tasks").actions, direction)
        own = replace(own, utilities=np.round(own.utilities, 1 + number))
        found[direction] = own.take(np.random.default_rng(8).permutation(len(own))) if number else own
    return found


@pytest.mark.parametrize("same_pair", [True, False])
def test_open_actions_and_what_trying_them_is_worth(
    data: WorldData, rows: dict[Direction, TrainingRows], same_pair: bool
) -> None:
    first, second = data.along
    actions = len(rows[first].actions)
    rng = np.random.default_rng(2)
    says: dict[Direction, dict[Key, np.ndarray]] = {}
    labels: dict[str, dict[Key, np.ndarray]] = {}
    for direction in data.along:
        test = rows[direction].of_split("test")
        labels[direction.chosen_on] = dict(zip(_keys(test), test.utilities, strict=True))
        # Some rows are sure of themselves and some are not.
        scales = rng.choice([0.003, 0.1], size=len(test))
        says[direction] = {
            key: own + rng.normal(0.0, 0.1, size=actions) + scale * rng.normal(size=(4, actions))
            for key, own, scale in zip(_keys(test), test.utilities, scales, strict=True)
        }
    calibration = _calibration(actions, same_pair=same_pair)
    selectors = {rows[d].fingerprint: Told(says[d], calibration) for d in data.along}
    assert len(selectors) == 2
    stand_in: Any = SimpleNamespace(along=data.along, selector=lambda r: selectors[r.fingerprint])
    found = _told_apart(stand_in, rows, {first: second, second: first})

    def width(deviation: float, mine: float, other: float) -> float:
        return 1.5 * math.hypot(0.02, deviation) if same_pair else mine + other

    expected = _expected(says, labels, width)
    assert found.pop("actions") == actions
    assert found == pytest.approx(expected, abs=1e-12)
    assert 1.0 < found["mean_open"] < actions
    assert found["settled"] != found["chosen"]
    assert 0.0 < found["holds_best"] < 1.0


def test_one_sure_row_leaves_the_choice_alone_and_an_unsure_one_everything(
    data: WorldData, rows: dict[Direction, TrainingRows]
) -> None:
    first, second = data.along
    actions = len(rows[first].actions)
    for distance, expected in ((5.0, 1.0), (0.001, float(actions))):
        says = {key: np.tile(-distance * np.arange(actions), (3, 1)) for key in _keys(rows[first])}
        selector = Told(says, _calibration(actions, same_pair=True))
        stand_in: Any = SimpleNamespace(along=data.along, selector=lambda r, s=selector: s)
        assert _told_apart(stand_in, rows, {first: second, second: first})["mean_open"] == expected


def test_means_are_weighted_by_merges_and_keep_what_all_parts_have() -> None:
    def part(merges: int, value: float, **differences: float) -> dict[str, Any]:
        return {
            "level": 0.9,
            "merges": merges,
            "every_action": value,
            "chosen_action": 2 * value,
            "mean_half_width": 3 * value,
            "differences": differences,
            "split": "pairs",
        }

    parts = [part(10, 0.1, same_pair=0.5, shared_checkpoint=0.6), part(30, 0.3, shared_checkpoint=0.8)]
    mean = (10 * 0.1 + 30 * 0.3) / 40
    assert _mean(parts) == {
        "level": 0.9,
        "merges": 40,
        "every_action": pytest.approx(mean),
        "chosen_action": pytest.approx(2 * mean),
        "mean_half_width": pytest.approx(3 * mean),
        "differences": {"shared_checkpoint": pytest.approx((10 * 0.6 + 30 * 0.8) / 40)},
    }


def test_a_split_is_carried_over_by_pair_and_task_not_by_place(
    data: WorldData, rows: dict[Direction, TrainingRows]
) -> None:
    one, two = (rows[d] for d in data.along)
    assert _keys(one) != _keys(two)
    split = np.array(["test" if i % 3 else "train" for i in range(len(one))])
    by_key = dict(zip(_keys(one), split.tolist(), strict=True))
    assert _same_rows(one, two, split) == [by_key[key] for key in _keys(two)]
