"""Every feature column against a float64 reference from the raw weights and records."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
import pytest

from simmerge_core.errors import TableError
from simmerge_core.features import FEATURE_GROUPS, FEATURE_VERSION, FEATURES, PAPER_GROUPS, pairwise_features
from simmerge_core.tables import PAIRWISE_FEATURES

if TYPE_CHECKING:
    from conftest import Family  # type: ignore[import-not-found]

    MakeFamily = Callable[..., Family]
else:
    MakeFamily = Callable

NAMES = [column.name for column in FEATURES]
MODULES = {
    "attention": "self_attn",
    "mlp": "mlp",
    "norm": "norm",
    "embedding": "embed_tokens",
    "head": "lm_head",
}


def _features(family: Family, **changes: Any) -> pl.DataFrame:
    options = {"manifests": family.manifests, "pairs": family.pairs, "probe_key": "key", **changes}
    functional = options.pop("functional", family.functional)
    return pairwise_features(functional, options.pop("gram", family.gram), **options)


def _statistics(prefix: str, values: Iterable[float]) -> dict[str, float]:
    numbers = np.sort(np.array(list(values), dtype=np.float64))
    at = {"median": 0.5, "q25": 0.25, "q75": 0.75, "q90": 0.9}
    ranks = np.arange(len(numbers))
    result = {f"{prefix}_{name}": float(np.interp(q * (len(numbers) - 1), ranks, numbers)) for name, q in at.items()}
    return {f"{prefix}_mean": float(numbers.mean()), **result}


def _cosine(x: np.ndarray, y: np.ndarray) -> float:
    return float(x @ y / np.linalg.norm(x) / np.linalg.norm(y))


def _flat(weights: dict[str, Any], part: str) -> np.ndarray:
    return np.concatenate([weights[n].double().numpy().ravel() for n in sorted(weights) if part in n])


def _weights_reference(family: Family, a: str, b: str, *, tied: bool) -> dict[str, float]:
    def view(part: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        x, y, o = (_flat(w, part) for w in (family.weights[a], family.weights[b], family.base))
        return x, y, o

    norm = np.linalg.norm
    x, y, o = view("")
    layers = [view(f"layers.{n}.") for n in range(3)]
    relative = [norm(p - q) / np.sqrt(norm(p) * norm(q)) for p, q, _ in [(x, y, o), *layers]]
    expected = {
        "weight_cosine": _cosine(x, y),
        "weight_l2": norm(x - y),
        "weight_norm_a": norm(x),
        "weight_norm_b": norm(y),
        "weight_l2_relative": relative[0],
        "weight_log_norm_ratio": np.log(norm(x) / norm(y)),
        "weight_log_norm_a_base": np.log(norm(x) / norm(o)),
        "weight_log_norm_b_base": np.log(norm(y) / norm(o)),
        **_statistics("layer_weight_cosine", [_cosine(p, q) for p, q, _ in layers]),
        **_statistics("layer_weight_l2_relative", relative[1:]),
        **_statistics("layer_weight_log_norm_ratio", [np.log(norm(p) / norm(q)) for p, q, _ in layers]),
        "task_vector_cosine": _cosine(x - o, y - o),
        "task_vector_log_norm_ratio": np.log(norm(x - o) / norm(y - o)),
        "task_vector_relative_norm_a": norm(x - o) / norm(o),
        "task_vector_relative_norm_b": norm(y - o) / norm(o),
        "task_vector_sign_agreement": np.mean((x - o) * (y - o) > 0),
        "weight_sign_conflict": np.mean(x * y <= 0),
    }
    for module, part in MODULES.items():
        p, q, r = view("embed_tokens" if tied and module == "head" else part)
        expected |= {
            f"{module}_weight_cosine": _cosine(p, q),
            f"{module}_weight_l2_relative": norm(p - q) / np.sqrt(norm(p) * norm(q)),
            f"{module}_weight_log_norm_ratio": np.log(norm(p) / norm(q)),
            f"{module}_log_norm_a_base": np.log(norm(p) / norm(r)),
            f"{module}_log_norm_b_base": np.log(norm(q) / norm(r)),
            f"{module}_task_vector_cosine": _cosine(p - r, q - r),
        }
    return expected


def _functional_reference(family: Family, a: str, b: str) -> dict[str, float]:
    one, other = family.records[a], family.records[b]

    def divergence(p: Any, q: Any) -> list[float]:
        logs = [r.logprobs.double().numpy() for r in (p, q)]
        masses = [np.exp(x) / np.exp(x).sum(-1, keepdims=True) for x in logs]
        rows = (masses[0] * np.log(masses[0] / masses[1])).sum(-1)
        return [float(rows[s.rows].mean()) for s in p.slices]

    def over_prompts(what: str, index: tuple[int, ...]) -> float:
        values = []
        for place in one.slices:
            part = place.rows if what == "hidden" else place.packed
            values.append(_cosine(*(getattr(r, what)[index][part].double().numpy().ravel() for r in (one, other))))
        return float(np.mean(values))

    signals = {"probe_nll": "nll", "probe_entropy": "entropy", "last_entropy": "last_entropy"}
    return {
        **_statistics("kl_ab", divergence(one, other)),
        **_statistics("kl_ba", divergence(other, one)),
        **_statistics("activation_cosine", [over_prompts("hidden", (layer,)) for layer in range(3)]),
        **_statistics(
            "attention_cosine", [over_prompts("attention", (layer, head)) for layer in range(3) for head in range(2)]
        ),
        **{
            f"{name}_{side}": float(getattr(record, field).mean())
            for name, field in signals.items()
            for side, record in (("a", one), ("b", other))
        },
    }


@pytest.mark.parametrize("tied", [False, True])
def test_every_column_is_that_of_the_reference(make_family: MakeFamily, tied: bool) -> None:
    family = make_family(tied=tied)
    frame = PAIRWISE_FEATURES.validated(_features(family), where="here")
    assert frame.select("a", "b").rows() == [p for a, b in family.pairs for p in ((a, b), (b, a))]
    for row in frame.iter_rows(named=True):
        a, b = row["a"], row["b"]
        expected = _functional_reference(family, a, b) | _weights_reference(family, a, b, tied=tied)
        assert set(expected) == set(NAMES)
        for name in NAMES:
            assert row[name] == pytest.approx(expected[name], rel=1e-5, abs=1e-6), name
        assert (row["a_domain"], row["b_domain"]) == (f"task-{a}", f"task-{b}")
        assert (row["probe_key"], row["feature_version"]) == ("key", FEATURE_VERSION)
        assert row["a_fingerprint"] == family.records[a].fingerprint


def _counterpart(name: str) -> tuple[str, float]:
    """Column and sign that a column takes when a and b change places."""
    if name.startswith("kl_"):
        return name.replace("kl_ab", "kl_xx").replace("kl_ba", "kl_ab").replace("kl_xx", "kl_ba"), 1.0
    if "log_norm_ratio" in name:
        # A negated sequence has its lower quantile where its upper one was; q90 has no partner.
        pairs = {"q25": "q75", "q75": "q25"}
        head, _, statistic = name.rpartition("_")
        return (f"{head}_{pairs[statistic]}" if statistic in pairs else name), -1.0
    for side, other in (("_a", "_b"), ("_b", "_a")):
        if name.endswith((side, f"{side}_base")):
            stem = name.removesuffix("_base")
            return stem.removesuffix(side) + other + ("_base" if name.endswith("_base") else ""), 1.0
    return name, 1.0


def test_swapping_the_pair_swaps_or_negates_the_right_columns(make_family: MakeFamily) -> None:
    family = make_family()
    rows = {(row["a"], row["b"]): row for row in _features(family).iter_rows(named=True)}
    for (a, b), row in rows.items():
        for name in NAMES:
            if name == "layer_weight_log_norm_ratio_q90":
                continue
            column, sign = _counterpart(name)
            assert rows[b, a][column] == pytest.approx(sign * row[name], rel=1e-12, abs=1e-14), name


def test_order_and_orientation_of_the_input_do_not_matter(make_family: MakeFamily) -> None:
    family = make_family()
    plain = _features(family)
    turned = [(b, a) for a, b in reversed(family.pairs)]
    shuffled = _features(
        family,
        pairs=turned,
        functional=pl.concat([family.functional, family.functional.head(9)]).sample(fraction=1.0, shuffle=True, seed=3),
        gram=family.gram.sample(fraction=1.0, shuffle=True, seed=4),
    )
    for left, right in zip(plain.sort("a", "b").rows(), shuffled.sort("a", "b").rows(), strict=True):
        assert left[:8] == right[:8]
        assert left[8:] == pytest.approx(right[8:], rel=1e-14, abs=1e-15)


def test_identical_checkpoints(make_family: MakeFamily) -> None:
    family = make_family(twins=True)
    for row in _features(family, pairs=[("m-0", "m-1")]).iter_rows(named=True):
        for name in NAMES:
            if name.startswith("kl_"):
                assert 0.0 <= row[name] <= 1e-14, name
            elif "cosine" in name:
                assert row[name] == pytest.approx(1.0, abs=1e-14), name
            elif "_l2" in name or "log_norm_ratio" in name:
                assert row[name] == pytest.approx(0.0, abs=1e-15), name


def test_scaling_every_weight_changes_only_lengths(make_family: MakeFamily) -> None:
    plain, scaled = (_features(make_family(scale=scale)) for scale in (1.0, 8.0))
    lengths = {"weight_l2", "weight_norm_a", "weight_norm_b"}
    for name in NAMES:
        factor = 8.0 if name in lengths else 1.0
        assert scaled[name].to_list() == pytest.approx((plain[name] * factor).to_list(), rel=1e-11, abs=1e-12), name


def test_frozen_modules_give_finite_values(make_family: MakeFamily) -> None:
    family = make_family(frozen=("embed_tokens", "lm_head"))
    frame = PAIRWISE_FEATURES.validated(_features(family), where="here")
    assert set(frame["embedding_task_vector_cosine"]) == {1.0}  # two zero vectors are equal
    assert set(frame["head_weight_l2_relative"]) == {0.0}
    everything = frame.select(NAMES)
    assert everything.select(pl.all().is_finite().all()).row(0) == (True,) * len(NAMES)
    base_like = make_family(frozen=("",))  # every checkpoint is the base
    everything = _features(base_like).select(NAMES)
    assert everything.select(pl.all().is_finite().all()).row(0) == (True,) * len(NAMES)


def test_zero_weights_give_finite_values(make_family: MakeFamily) -> None:
    frame = PAIRWISE_FEATURES.validated(_features(make_family(scale=0.0)), where="here")
    assert frame.select(pl.col(NAMES).is_finite().all()).row(0) == (True,) * len(NAMES)


def test_no_pairs_is_an_empty_table(make_family: MakeFamily) -> None:
    frame = _features(make_family(), pairs=[])
    assert PAIRWISE_FEATURES.validated(frame, where="here").is_empty()


def test_groups_cover_all_features() -> None:
    assert sorted(name for group in FEATURE_GROUPS.values() for name in group) == sorted(NAMES)
    assert set(PAPER_GROUPS) < set(FEATURE_GROUPS)
    assert all(column.description and column.unit for column in FEATURES)


def test_missing_and_stale_rows_are_named(make_family: MakeFamily) -> None:
    family = make_family()
    pair = (pl.col("a") == "m-0") & (pl.col("b") == "m-2")
    for without, message in (
        (pair & (pl.col("metric") == "kl"), "no kl_ab_mean for 'm-0' and 'm-2'"),
        (pair & (pl.col("metric") == "attention_cosine"), "no attention_cosine_mean for 'm-0' and 'm-2'"),
        ((pl.col("a") == "m-2") & (pl.col("b") == "m-2"), "no probe_nll_a for 'm-2'"),
    ):
        with pytest.raises(TableError, match=message):
            _features(family, functional=family.functional.filter(~without))
    with pytest.raises(TableError, match="no products of 'm-0' and 'm-2' with each other"):
        _features(family, gram=family.gram.filter((pl.col("checkpoint") != "m-0") | (pl.col("other") != "m-2")))
    with pytest.raises(TableError, match="'m-3' has no manifest"):
        _features(family, manifests=family.manifests.filter(pl.col("checkpoint") != "m-3"))
    changed = family.manifests.with_columns(
        fingerprint=pl.when(pl.col("checkpoint") == "m-1").then(pl.lit("another")).otherwise("fingerprint")
    )
    with pytest.raises(TableError, match="functional_similarity has rows of checkpoint 'm-1' from content"):
        _features(family, manifests=changed)
    with pytest.raises(TableError, match="several tasks"):
        tasks = pl.Series("task", ["math", "rag"] * family.functional.height).head(family.functional.height)
        _features(family, functional=family.functional.with_columns(tasks))
