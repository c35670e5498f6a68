"""Whatever arrives in whatever order, fails, is done by hand or at once, leaves or comes back: no pair is lost.

The bodies of the assets are the real ones; what stands in is the models behind them.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from itertools import permutations

import polars as pl
import pytest
import torch
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from pipeline_standins import READS, Fault, Standins, made
from polars.testing import assert_frame_equal

from simmerge_core.catalog import Catalog
from simmerge_core.labels import design
from simmerge_core.tables import MERGE_LABELS, PAIRWISE_FEATURES, DataRoot
from simmerge_pipeline.checks import missing_pairs
from simmerge_pipeline.contents import fingerprints, held_weights
from simmerge_pipeline.lost_pairs import lost_labels, lost_pairs

pytestmark = pytest.mark.integration

CHECKPOINTS = {"c0": "math", "c1": "code", "c2": "math", "c3": "code"}
TASKS = ("math", "code")
OF_PAIRS = ("weight_gram", "functional_similarity", "pairwise_features", "merge_labels")
FAULTS = st.none() | st.builds(Fault, at=st.integers(1, 3), kill=st.booleans())


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> Catalog:
    torch.set_num_threads(1)
    return made(tmp_path_factory.mktemp("catalog"), CHECKPOINTS, TASKS, labels={"auxiliary_auxiliary": 1.0})


@pytest.fixture(scope="module")
def at_once(full: Catalog, tmp_path_factory: pytest.TempPathFactory) -> Standins:
    """Everything there from the beginning, one run per asset."""
    world = Standins(
        full.path.parent, full, DataRoot(tmp_path_factory.mktemp("at-once")), list(CHECKPOINTS), list(TASKS)
    )
    with world.watched():
        for asset in READS:
            world.run(asset, world.ready(asset))
    return world


def features(world: Standins) -> pl.DataFrame:
    """Rows that a reader takes: of checkpoints and tasks that are declared."""
    rows = world.root.scan(PAIRWISE_FEATURES).collect()
    present = pl.col("a").is_in(world.present) & pl.col("b").is_in(world.present) & pl.col("task").is_in(world.tasks)
    return rows.filter(present).drop("checkpoint")


def labels(world: Standins) -> pl.DataFrame:
    rows = world.root.scan(MERGE_LABELS).collect()
    present = pl.col("a").is_in(world.present) & pl.col("b").is_in(world.present) & pl.col("task").is_in(world.tasks)
    return rows.filter(present).drop("checkpoint")


def check(world: Standins, at_once: Standins) -> None:
    found, keys = features(world), ["task", "a", "b"]
    once = found.unique(keys).sort(keys)
    wanted = {(t, a, b) for t in world.tasks for a, b in permutations(sorted(world.present), 2)}
    assert {tuple(row) for row in once.select(keys).iter_rows()} == wanted
    reference = features(at_once).join(once.select(keys), on=keys, how="semi")
    assert_frame_equal(once, reference.sort(keys))
    assert_frame_equal(found.sort(keys), found.select(keys).join(reference, on=keys).select(found.columns).sort(keys))

    found, keys = labels(world), ["task", "a", "b", "action", "item_set"]
    once = found.unique(keys).sort(keys)
    designed = design(world.catalog, world.present)
    assert once.select("a", "b", "task").unique().sort("a", "b", "task").equals(designed.select("a", "b", "task"))
    assert_frame_equal(once, labels(at_once).join(once.select(keys), on=keys, how="semi").sort(keys))

    held = held_weights(world.root, fingerprints(world.root, world.catalog))
    assert not [c for c in world.present if missing_pairs(c, world.present, held)]


def some(data: st.DataObject, keys: list[str]) -> list[str]:
    """Some of the keys, in the order of the partitions; at least one if there is any."""
    chosen = data.draw(st.sets(st.sampled_from(keys), min_size=1, max_size=4)) if keys else set()
    return [key for key in keys if key in chosen]


def any_run(data: st.DataObject, world: Standins) -> tuple[str, list[str]]:
    """What the automation asks for, or what somebody does by hand: any asset, partitions done before or not."""
    asset = data.draw(st.sampled_from(list(READS)))
    ready = world.ready(asset)
    if data.draw(st.booleans()) or not ready:
        return asset, some(data, [key for key in world.keys(asset) if world.has_inputs(asset, key)])
    return asset, some(data, ready)


def runs(world: Standins, listed: list[tuple[str, list[str]]]) -> None:
    for asset, keys in listed:
        world.run(asset, keys)


def as_far_as(world: Standins, last: str, *, fault: Fault | None = None) -> None:
    """What the automation asks for, asset by asset, down to one of them."""
    for asset in READS:
        world.run(asset, world.ready(asset), fault=fault)
        if asset == last:
            return


def made_up_for(world: Standins) -> None:
    """As the catalog's sensor, tick after tick: partitions that lack pairs are done again, and no others."""
    for asset in OF_PAIRS:
        lacking = lost_labels if asset == "merge_labels" else partial(lost_pairs, asset)
        lost = lacking(world.catalog, world.root)
        assert lost.keys() <= set(world.keys(asset))
        world.run(asset, [key for key in world.keys(asset) if key in lost])
        assert not lacking(world.catalog, world.root)


@settings(
    max_examples=25, deadline=None, derandomize=True, database=None, phases=[Phase.generate],
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much],
)  # fmt: skip
@given(data=st.data())
def test_every_pair_is_there_once_with_the_values_of_one_go(
    data: st.DataObject, full: Catalog, at_once: Standins, tmp_path_factory: pytest.TempPathFactory
) -> None:
    world = Standins(full.path.parent, full, DataRoot(tmp_path_factory.mktemp("data")))
    to_come = list(data.draw(st.permutations(list(CHECKPOINTS))))
    world.present, world.tasks = [to_come.pop(), to_come.pop()], [data.draw(st.sampled_from(TASKS))]
    gone: list[str] = []
    with world.watched():
        as_far_as(world, "merge_labels")
        for _ in range(data.draw(st.integers(2, 6))):
            happens = data.draw(st.sampled_from(("arrive", "arrive", "task", "leave", "back", "nothing")))
            if happens == "arrive" and to_come:
                world.present.append(to_come.pop())
            elif happens == "task":
                world.tasks = list(TASKS)
            elif happens == "leave" and len(world.present) > 1:
                gone.append(world.present.pop(data.draw(st.integers(0, len(world.present) - 1))))
            elif happens == "back" and gone:
                world.present.append(gone.pop())
                made_up_for(world)
            as_far_as(world, data.draw(st.sampled_from(list(READS))), fault=data.draw(FAULTS))
            for _ in range(data.draw(st.integers(0, 2))):
                asset, keys = any_run(data, world)
                others = [any_run(data, world) for _ in range(data.draw(st.integers(0, 2)))]
                fault = data.draw(FAULTS)
                world.run(asset, keys, fault=fault, beside=partial(runs, world, others) if others else None)
        # No more faults: what the automation and the sensor still ask for, and nothing else.
        as_far_as(world, "merge_labels")
        made_up_for(world)
        assert not [key for asset in READS for key in world.ready(asset)]
    check(world, at_once)


@pytest.fixture
def grown(full: Catalog, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Standins]:
    """Two checkpoints of one task, dealt with; a third has just arrived."""
    world = Standins(full.path.parent, full, DataRoot(tmp_path_factory.mktemp("data")), ["c0", "c1"], ["math"])
    with world.watched():
        as_far_as(world, "merge_labels")
        world.present.append("c2")
        yield world


@pytest.mark.parametrize("by_hand", ["functional_similarity", "pairwise_features", "merge_labels"])
def test_a_backfill_by_hand_while_another_checkpoint_is_on_its_way_loses_nothing(
    grown: Standins, at_once: Standins, by_hand: str
) -> None:
    before = READS[by_hand][0]
    as_far_as(grown, before)  # the new one's inputs are there, its own partition is not
    grown.run(by_hand, ["c0|math", "c1|math"])  # takes the pairs with it
    as_far_as(grown, "merge_labels")
    check(grown, at_once)


def test_what_arrived_while_a_checkpoint_was_away_is_paired_with_it_when_it_is_back(
    grown: Standins, at_once: Standins
) -> None:
    grown.present.remove("c0")
    as_far_as(grown, "merge_labels")
    check(grown, at_once)
    grown.present.append("c0")
    made_up_for(grown)
    check(grown, at_once)


def test_a_checkpoint_that_fails_and_is_repaired_after_others_came_has_all_its_pairs(
    grown: Standins, at_once: Standins
) -> None:
    grown.run("checkpoints", ["c2"])
    grown.run("weight_gram", ["c2"], fault=Fault(at=1, kill=True))  # written, and never told
    grown.present.append("c3")
    for asset in READS:
        grown.run(asset, [key for key in grown.ready(asset) if not key.startswith("c2")])
    as_far_as(grown, "merge_labels")
    check(grown, at_once)
