"""KL and cosines on synthetic records, against a float64 loop over prompts and positions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import polars as pl
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from simmerge_core.catalog import ProbeSettings
from simmerge_core.errors import ProbeError
from simmerge_core.probes import ProbeRecord
from simmerge_core.similarity import functional, functional_many, outputs, self_signals
from simmerge_core.tables import FUNCTIONAL_SIMILARITY

MakeRecord = Callable[..., ProbeRecord]
STATISTICS = ("mean", "median", "q25", "q75", "q90")


def _statistics(values: list[float]) -> list[float]:
    """Mean and quantiles by hand: sorted values, position q (n - 1), linear between neighbours."""
    ordered = sorted(values)

    def quantile(q: float) -> float:
        position = q * (len(ordered) - 1)
        low = int(position)
        high = min(low + 1, len(ordered) - 1)
        return ordered[low] + (position - low) * (ordered[high] - ordered[low])

    return [sum(values) / len(values), *(quantile(q) for q in (0.5, 0.25, 0.75, 0.9))]


def _kl_per_prompt(a: ProbeRecord, b: ProbeRecord) -> list[float]:
    assert a.logprobs is not None
    assert b.logprobs is not None
    values = []
    for place in a.slices:
        positions = []
        for row in range(place.rows.start, place.rows.stop):
            p, q = (np.exp(r.logprobs[row].double().numpy()) for r in (a, b))
            p, q = p / p.sum(), q / q.sum()
            positions.append(sum(x * np.log(x / y) for x, y in zip(p, q, strict=True)))
        values.append(sum(positions) / len(positions))
    return values


def _cosine(x: torch.Tensor, y: torch.Tensor) -> float:
    u, v = x.double().numpy().ravel(), y.double().numpy().ravel()
    return float(u @ v / np.sqrt(u @ u) / np.sqrt(v @ v))


def _row(frame: pl.DataFrame, **where: object) -> list[float]:
    rows = frame.filter(**where).select(STATISTICS).rows()
    assert len(rows) == 1, where
    return list(rows[0])


def test_every_statistic_is_that_of_a_plain_loop(make_record: MakeRecord) -> None:
    a, b = make_record(1), make_record(2)
    frame = functional(a, b, a_id="m-a", b_id="m-b")
    assert frame.height == 2 + 2 + 4
    assert _row(frame, metric="kl", a="m-a", b="m-b") == pytest.approx(_statistics(_kl_per_prompt(a, b)), rel=1e-9)
    assert _row(frame, metric="kl", a="m-b", b="m-a") == pytest.approx(_statistics(_kl_per_prompt(b, a)), rel=1e-9)
    for layer in range(2):
        values = [_cosine(a.hidden[layer, s.rows], b.hidden[layer, s.rows]) for s in a.slices]
        got = _row(frame, metric="activation_cosine", layer=layer, head=-1)
        assert got == pytest.approx(_statistics(values), abs=1e-12)
        for head in range(2):
            values = [_cosine(a.attention[layer, head, s.packed], b.attention[layer, head, s.packed]) for s in a.slices]
            got = _row(frame, metric="attention_cosine", layer=layer, head=head)
            assert got == pytest.approx(_statistics(values), abs=1e-12)
    assert set(frame["prompts"]) == {5}


def test_rows_satisfy_the_table(make_record: MakeRecord) -> None:
    records = {f"m-{n}": make_record(n) for n in range(3)}
    frame = pl.concat(
        [
            functional_many(records, [("m-0", "m-1"), ("m-2", "m-1")]),
            *(self_signals(record, checkpoint=name) for name, record in records.items()),
        ]
    )
    checked = FUNCTIONAL_SIMILARITY.validated(frame, where="here")
    assert checked.filter(a="m-2", metric="kl")["a_fingerprint"].to_list() == ["content-2"]


def test_many_pairs_are_the_pairs_one_by_one(make_record: MakeRecord) -> None:
    records = {f"m-{n}": make_record(n) for n in range(5)}
    pairs = [("m-3", "m-0"), ("m-1", "m-2"), ("m-0", "m-4"), ("m-4", "m-1"), ("m-0", "m-1")]
    together = functional_many(records, pairs)
    alone = pl.concat(functional(records[a], records[b], a_id=a, b_id=b) for a, b in pairs)
    key = ["a", "b", "metric", "layer", "head"]
    for left, right in zip(together.sort(key).iter_rows(), alone.sort(key).iter_rows(), strict=True):
        assert left[:5] == right[:5]
        assert left[5:10] == pytest.approx(right[5:10], abs=1e-13)
    assert functional_many(records, []).schema == together.schema


@pytest.mark.parametrize("budget", [1, 200, 3000])
def test_working_in_parts_changes_nothing(
    make_record: MakeRecord, monkeypatch: pytest.MonkeyPatch, budget: int
) -> None:
    records = {f"m-{n}": make_record(n) for n in range(3)}
    pairs = [("m-0", "m-1"), ("m-1", "m-2"), ("m-0", "m-2")]
    whole = functional_many(records, pairs)
    monkeypatch.setattr(outputs, "_BUDGET", budget)
    parts = functional_many(records, pairs)
    for name in STATISTICS:
        assert parts[name].to_list() == pytest.approx(whole[name].to_list(), abs=1e-13)


def test_same_bytes_at_any_number_of_threads(make_record: MakeRecord) -> None:
    records = {f"m-{n}": make_record(n) for n in range(4)}
    pairs = [("m-0", "m-1"), ("m-1", "m-2"), ("m-0", "m-3")]
    frames = []
    for threads in (1, 3):
        torch.set_num_threads(threads)
        frames.append(functional_many(records, pairs))
        assert torch.get_num_threads() == threads
    assert frames[0].equals(frames[1])


def test_equal_models_have_no_divergence_and_cosine_one(make_record: MakeRecord) -> None:
    for top in (None, 4):
        frame = functional(make_record(1, top=top), make_record(1, top=top), a_id="x", b_id="y")
        kl = frame.filter(metric="kl")
        assert kl.select(STATISTICS).to_numpy().max() <= 1e-14
        cosines = frame.filter(pl.col("metric") != "kl").select(STATISTICS).to_numpy()
        np.testing.assert_allclose(cosines, 1.0, atol=1e-15)


def test_swapping_the_models_swaps_the_divergences_only(make_record: MakeRecord) -> None:
    a, b = make_record(1), make_record(2)
    one, other = functional(a, b, a_id="a1", b_id="b1"), functional(b, a, a_id="b1", b_id="a1")
    for first, second in (("a1", "b1"), ("b1", "a1")):
        assert _row(one, metric="kl", a=first, b=second) == pytest.approx(
            _row(other, metric="kl", a=first, b=second), rel=1e-12
        )
    for metric in ("activation_cosine", "attention_cosine"):
        got = [f.filter(metric=metric).select(STATISTICS).to_numpy() for f in (one, other)]
        np.testing.assert_allclose(*got, rtol=1e-13)


def test_cosines_do_not_see_scale_and_see_sign(make_record: MakeRecord) -> None:
    a, b = make_record(1), make_record(2)
    plain = functional(a, b, a_id="a1", b_id="b1").filter(metric="activation_cosine")["mean"].to_numpy()
    for factor in (8.0, -0.25):
        scaled = replace(b, hidden=b.hidden * factor)
        got = functional(a, scaled, a_id="a1", b_id="b1").filter(metric="activation_cosine")["mean"].to_numpy()
        np.testing.assert_allclose(got, np.sign(factor) * plain, rtol=1e-12)


def test_zero_vectors_have_cosine_zero_or_one(make_record: MakeRecord) -> None:
    a, b = make_record(1), make_record(2)
    nothing = replace(b, hidden=torch.zeros_like(b.hidden))
    one = functional(a, nothing, a_id="a1", b_id="b1").filter(metric="activation_cosine")
    both = functional(nothing, nothing, a_id="a1", b_id="b1").filter(metric="activation_cosine")
    assert one["mean"].to_list() == [0.0, 0.0]
    assert both["mean"].to_list() == [1.0, 1.0]


@settings(deadline=None, max_examples=25)
@given(seed=st.integers(0, 10_000), top=st.integers(1, 11), spread=st.floats(0.1, 8.0))
def test_kept_tokens_bound_the_divergence_from_below(
    make_record: MakeRecord, seed: int, top: int, spread: float
) -> None:
    def means(kept: int | None) -> list[float]:
        a, b = (make_record(s, top=kept, spread=spread) for s in (seed, seed + 1))
        if kept == 11:  # every token is kept: the tail has no mass
            a, b = (replace(r, tail_logprobs=torch.full_like(r.tail_logprobs, -200.0)) for r in (a, b))
        return functional(a, b, a_id="a1", b_id="b1").filter(metric="kl")["mean"].to_list()

    for bound, full in zip(means(top), means(None), strict=True):
        assert -1e-12 <= bound <= full + 1e-6
        if top == 11:
            assert bound == pytest.approx(full, rel=1e-6)


def test_bucketed_divergence_is_that_of_the_merged_distributions(make_record: MakeRecord) -> None:
    full = [make_record(seed) for seed in (1, 2)]
    few = [make_record(seed, top=4) for seed in (1, 2)]
    expected = []
    for place in full[0].slices:
        positions = []
        for row in range(place.rows.start, place.rows.stop):
            common = sorted(set(few[0].top_ids[row].tolist()) & set(few[1].top_ids[row].tolist()))
            p, q = (np.exp(r.logprobs[row].double().numpy()) for r in full)
            p, q = (np.append(x[common], np.delete(x, common).sum()) / x.sum() for x in (p, q))
            positions.append(float((p * np.log(p / q)).sum()))
        expected.append(np.mean(positions))
    got = _row(functional(*few, a_id="a1", b_id="b1"), metric="kl", a="a1", b="b1")
    assert got == pytest.approx(_statistics(expected), rel=1e-5)


def test_self_signals(make_record: MakeRecord) -> None:
    record = make_record(3)
    frame = self_signals(record, checkpoint="m")
    for metric, values in (
        ("probe_nll", record.nll),
        ("probe_entropy", record.entropy),
        ("last_entropy", record.last_entropy),
    ):
        assert _row(frame, metric=metric, a="m", b="m") == pytest.approx(_statistics(values.tolist()), rel=1e-12)


def test_records_that_cannot_be_compared_are_refused(make_record: MakeRecord) -> None:
    a, b = make_record(1), make_record(2)
    for other, message in (
        (replace(b, probe_key="other"), "different prompts or settings"),
        (replace(b, settings=ProbeSettings(count=9)), "different prompts or settings"),
        (replace(b, tokens=b.tokens + 1), "encode the probes differently"),
        (replace(b, hidden=b.hidden[:, :, :2]), "different layers, widths or heads"),
    ):
        with pytest.raises(ProbeError, match=f"'m-a' and 'm-b' .*{message}"):
            functional(a, other, a_id="m-a", b_id="m-b")
    with pytest.raises(ProbeError, match="'m-z' has no probe record"):
        functional_many({"m-a": a}, [("m-a", "m-z")])
