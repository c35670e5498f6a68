"""The designed labels: complete, stable under growth, and of the declared shares."""

from __future__ import annotations

from itertools import combinations

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simmerge_core.catalog import Benchmark, Catalog, CheckpointEntry, LabelDesign, Task
from simmerge_core.errors import CatalogError
from simmerge_core.labels import design, kind_of, shares_of, split_of

TASKS = ("math", "code", "rag", "law")


def catalog_of(ids: dict[str, str], **labels: object) -> Catalog:
    return Catalog(
        version=1,
        base=CheckpointEntry(id="base", path="base"),
        checkpoints=tuple(CheckpointEntry(id=id, path=id, domain=domain) for id, domain in ids.items()),
        tasks=tuple(Task(id=t, probes="p", benchmarks=(Benchmark(name="b", metrics=("acc,none",)),)) for t in TASKS),
        labels=LabelDesign.model_validate(labels),
    )


def experts(count: int) -> dict[str, str]:
    return {f"m{i}-{TASKS[i % 4]}": TASKS[i % 4] for i in range(count)}


def test_every_cross_domain_pair_is_scored_on_both_tasks() -> None:
    ids = experts(12)
    rows = design(catalog_of(ids, expert_auxiliary=1.0, auxiliary_auxiliary=0.0), ids)
    expected = {(a, b, task) for a, b in combinations(sorted(ids), 2) if ids[a] != ids[b] for task in (ids[a], ids[b])}
    assert set(rows.select("a", "b", "task").rows()) == expected
    assert rows.height == len(expected)
    assert rows["kind"].unique().to_list() == ["expert_auxiliary"]


@given(st.permutations(list(experts(9))), st.integers(2, 9), st.floats(0, 1), st.floats(0, 1))
@settings(max_examples=40, deadline=None)
def test_growth_and_order_never_move_a_choice(order: list[str], early: int, pairs: float, thirds: float) -> None:
    ids = experts(9)
    catalog = catalog_of(ids, expert_auxiliary=pairs, auxiliary_auxiliary=thirds)
    # Other catalogs, in which not all of the checkpoints have been declared yet.
    small = catalog_of({id: ids[id] for id in order[:early]}, expert_auxiliary=pairs, auxiliary_auxiliary=thirds)
    whole = design(catalog, order)
    first = design(small, order[:early])
    assert design(catalog, reversed(order)).equals(whole)
    known = order[:early]
    assert whole.filter(pl.col("a").is_in(known) & pl.col("b").is_in(known)).equals(first)


@given(st.floats(0, 1), st.floats(0, 1))
@settings(max_examples=20, deadline=None)
def test_both_parents_tasks_always(pairs: float, thirds: float) -> None:
    ids = experts(10)
    rows = design(catalog_of(ids, expert_auxiliary=pairs, auxiliary_auxiliary=thirds), ids)
    experts_rows = rows.filter(kind="expert_auxiliary")
    assert experts_rows.group_by("a", "b").len()["len"].unique().to_list() in ([2], [])
    for a, b, task, kind, split in rows.rows():
        assert kind == kind_of(ids[a], ids[b], task)
        assert split == split_of(b, a, shares=shares_of(catalog_of(ids)), salt="simmerge")


def test_shares_are_met_and_a_larger_share_only_adds() -> None:
    ids = experts(60)
    chosen = [
        design(catalog_of(ids, expert_auxiliary=share, auxiliary_auxiliary=share), ids) for share in (0.2, 0.5, 1.0)
    ]
    for kind, cases in (("expert_auxiliary", 2700), ("auxiliary_auxiliary", 2700)):
        counts = [rows.filter(kind=kind).height for rows in chosen]
        assert counts[2] == cases
        assert counts[0] == pytest.approx(0.2 * cases, rel=0.15)
        assert counts[1] == pytest.approx(0.5 * cases, rel=0.1)
    assert set(chosen[0].rows()) < set(chosen[1].rows()) < set(chosen[2].rows())


def test_splits_have_their_shares_and_test_does_not_depend_on_validation() -> None:
    pairs = [(f"a{i}", f"b{j}") for i in range(60) for j in range(60)]
    wide = {"train": 0.5, "validation": 0.3, "test": 0.2}
    narrow = {"train": 0.75, "validation": 0.05, "test": 0.2}
    splits = [split_of(a, b, shares=wide, salt="s") for a, b in pairs]
    for split, share in wide.items():
        assert splits.count(split) / len(pairs) == pytest.approx(share, abs=0.03)
    other = [split_of(b, a, shares=narrow, salt="s") for a, b in pairs]
    assert [s == "test" for s in splits] == [s == "test" for s in other]
    assert splits != [split_of(a, b, shares=wide, salt="t") for a, b in pairs]


def test_a_split_is_the_same_forever() -> None:
    shares = {"train": 0.65, "validation": 0.15, "test": 0.2}
    splits = [split_of("math-01", f"code-{i:02d}", shares=shares, salt="simmerge") for i in range(1, 9)]
    # SHA-256 of "simmerge\x1fsplit\x1fcode-0i\x1fmath-01", first 53 bits, computed apart from this code.
    assert splits == ["validation", "validation", "train", "test", "train", "train", "test", "train"]


def test_same_domain_and_base_are_not_paired() -> None:
    ids = {"x": "math", "y": "math"}
    assert design(catalog_of(ids, auxiliary_auxiliary=1.0), [*ids, "base"]).is_empty()


def test_a_domain_without_a_task_is_an_auxiliary() -> None:
    ids = {"x": "math", "y": "poetry"}
    rows = design(catalog_of(ids, expert_auxiliary=1.0, auxiliary_auxiliary=0.0), ids)
    assert rows.select("task", "kind").rows() == [("math", "expert_auxiliary")]


@pytest.mark.parametrize(
    ("a", "b", "kind"),
    [
        ("math", "code", "expert_auxiliary"),
        ("code", "math", "expert_auxiliary"),
        ("math", "math", "expert_expert"),
        ("code", "rag", "auxiliary_auxiliary"),
        ("code", "code", "auxiliary_auxiliary"),
    ],
)
def test_kinds(a: str, b: str, kind: str) -> None:
    assert kind_of(a, b, "math") == kind


@pytest.mark.parametrize("shares", [{"train": 0.5}, {"train": 1.2, "test": -0.2}, {"train": 0.5, "other": 0.5}])
def test_unfit_shares(shares: dict[str, float]) -> None:
    with pytest.raises(CatalogError, match="sum to 1"):
        split_of("a", "b", shares=shares, salt="")


def test_no_room_for_training() -> None:
    with pytest.raises(ValueError, match="leave no pair for training"):
        catalog_of({}, test_share=0.6, validation_share=0.4)


def test_unknown_checkpoint() -> None:
    with pytest.raises(CatalogError, match="'nobody'"):
        design(catalog_of({}), ["nobody"])
