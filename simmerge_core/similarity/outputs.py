"""Functional similarity: how two models differ on a task's probes (App. B.2)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import polars as pl
import torch
from torch import Tensor

from simmerge_core.errors import ProbeError
from simmerge_core.probes.one_thread import one_thread
from simmerge_core.probes.record import ProbeRecord

_BUDGET = 1 << 28
"""Bytes that one stack of all records' numbers may take: longer prompts are worked on in parts."""

_SCHEMA: dict[str, pl.DataType | type[pl.DataType]] = {
    "a": pl.String,
    "b": pl.String,
    "metric": pl.String,
    "layer": pl.Int32,
    "head": pl.Int32,
    "mean": pl.Float64,
    "median": pl.Float64,
    "q25": pl.Float64,
    "q75": pl.Float64,
    "q90": pl.Float64,
    "prompts": pl.Int64,
    "a_fingerprint": pl.String,
    "b_fingerprint": pl.String,
}


def functional(a: ProbeRecord, b: ProbeRecord, *, a_id: str, b_id: str) -> pl.DataFrame:
    """Compare two models on a task's probes.

    Parameters
    ----------
    a, b
        Records on the same probe set with the same settings.
    a_id, b_id
        Checkpoint ids, for the rows and for errors.

    Returns
    -------
    Rows of table ``functional_similarity``: metric ``kl`` in nat for (a, b) and (b, a), per prompt the mean over
    positions; ``activation_cosine`` per layer and ``attention_cosine`` per layer and head for (a, b) only, as they
    are symmetric; each with mean, median and quantiles over prompts (linear interpolation between order
    statistics). Mathematics in float64. Of records that keep the k most probable tokens, the KL is that of the
    distributions over the tokens both kept and one bucket for all others: a lower bound of the KL (log-sum
    inequality).

    Raises
    ------
    ProbeError
        Records of different probe sets, settings, tokenizers or architectures.
    """
    return functional_many({a_id: a, b_id: b}, [(a_id, b_id)])


def functional_many(records: Mapping[str, ProbeRecord], pairs: Sequence[tuple[str, str]]) -> pl.DataFrame:
    """Compare many pairs on a task's probes at once; rows as of `functional`, pair by pair.

    Inner products of all pairs come from one matrix product per prompt and layer, so that N records cost about as much
    as reading them.

    Parameters
    ----------
    records
        By checkpoint id, all on the same probe set with the same settings; those in no pair are not looked at.
    pairs
        Unordered pairs, in the orientation wanted for the symmetric metrics.
    """
    if not pairs:
        return pl.DataFrame(schema=_SCHEMA)
    names = list(dict.fromkeys(name for pair in pairs for name in pair))
    for name in names:
        if name not in records:
            raise ProbeError(f"Checkpoint {name!r} has no probe record among those given: record its probes first.")
    first = names[0]
    for other in names[1:]:
        _check_comparable(records[first], records[other], first, other)
    stack = [records[name] for name in names]
    number = {name: index for index, name in enumerate(names)}
    grid = _Grid([number[a] for a, _ in pairs], [number[b] for _, b in pairs])
    with one_thread(), torch.inference_mode():
        kl_ab, kl_ba = _divergences(stack, grid)  # (pairs, N) each
        activation = _cosines(stack, grid, "hidden")  # (pairs, l, 1, N)
        attention = _cosines(stack, grid, "attention")  # (pairs, l, h, N)
    layers, heads = np.array(stack[0].layers, dtype=np.int32), np.arange(stack[0].heads, dtype=np.int32)
    none = np.array([-1], dtype=np.int32)
    return pl.concat(
        [
            _rows(records, pairs, "kl", kl_ab[:, None, None], none, none),
            _rows(records, [(b, a) for a, b in pairs], "kl", kl_ba[:, None, None], none, none),
            _rows(records, pairs, "activation_cosine", activation, layers, none),
            _rows(records, pairs, "attention_cosine", attention, layers, heads),
        ]
    )


def self_signals(record: ProbeRecord, *, checkpoint: str) -> pl.DataFrame:
    """Label-free signals of one model on a task's probes: rows of table ``functional_similarity`` with a = b.

    Metrics, in nat: ``probe_nll`` (mean negative log-likelihood of the prompt's own tokens), ``probe_entropy`` (mean
    predictive entropy), ``last_entropy`` (entropy at the last position, where the answer starts).
    """
    none = np.array([-1], dtype=np.int32)
    return pl.concat(
        _rows({checkpoint: record}, [(checkpoint, checkpoint)], metric, values.numpy()[None, None, None], none, none)
        for metric, values in (
            ("probe_nll", record.nll),
            ("probe_entropy", record.entropy),
            ("last_entropy", record.last_entropy),
        )
    )


def _check_comparable(a: ProbeRecord, b: ProbeRecord, a_id: str, b_id: str) -> None:
    both = f"Checkpoints {a_id!r} and {b_id!r}"
    if a.settings != b.settings or (a.probe_key and b.probe_key and a.probe_key != b.probe_key):
        raise ProbeError(f"{both} were probed with different prompts or settings: record the older one again.")
    if not torch.equal(a.lengths, b.lengths) or not torch.equal(a.tokens, b.tokens) or a.vocabulary != b.vocabulary:
        raise ProbeError(f"{both} encode the probes differently: they need the same tokenizer.")
    if a.hidden.shape != b.hidden.shape or a.attention.shape != b.attention.shape or a.layers != b.layers:
        raise ProbeError(f"{both} have different layers, widths or heads: only one architecture can be compared.")


class _Grid:
    """The pairs as cells of a rectangle: its rows and columns are the records that stand first and second."""

    def __init__(self, firsts: list[int], seconds: list[int]) -> None:
        self.rows, row = np.unique(firsts, return_inverse=True)
        self.columns, column = np.unique(seconds, return_inverse=True)
        self.cells = (row, column)
        self.firsts, self.seconds = np.array(firsts), np.array(seconds)

    def dot(self, x: Tensor, y: Tensor) -> np.ndarray:
        """⟨x[first], y[second]⟩ of every pair; x, y are (..., records, n) float64 -> (pairs, ...)."""
        products = x[..., self.rows, :] @ y[..., self.columns, :].mT  # (..., rows, columns), float64
        return np.moveaxis(products.numpy()[..., self.cells[0], self.cells[1]], -1, 0)


def _tiles(places: Sequence[slice], width: int) -> Iterator[tuple[np.ndarray, Tensor]]:
    """Groups of prompts of equal length, as their numbers (m,) and the places of their entries (m, n).

    A tile takes at most _BUDGET bytes at `width` float64 an entry; a prompt that is longer comes in several tiles.
    """
    counts = np.array([place.stop - place.start for place in places])
    starts = np.array([place.start for place in places])
    for count in np.unique(counts):
        entries = max(1, _BUDGET // (8 * width))
        prompts, steps = np.flatnonzero(counts == count), np.arange(count)
        together = max(1, entries // count)
        for first in range(0, len(prompts), together):
            group = prompts[first : first + together]
            for offset in range(0, count, entries):
                yield group, torch.from_numpy(starts[group, None] + steps[None, offset : offset + entries])


def _divergences(stack: list[ProbeRecord], grid: _Grid) -> tuple[np.ndarray, np.ndarray]:
    """KL(first ‖ second) and KL(second ‖ first) per pair and prompt, (pairs, N), mean over kept positions."""
    if stack[0].logprobs is None:
        return _bucketed_divergences(stack, grid)
    ab = np.zeros((len(grid.firsts), stack[0].prompts))
    ba = np.zeros_like(ab)
    for prompts, rows in _tiles([s.rows for s in stack[0].slices], len(stack) * stack[0].vocabulary):
        logs = torch.stack([_logprobs(record)[rows] for record in stack], dim=1).double()  # (m, records, n, V), float64
        # Stored numbers are rounded: normalised again, so that KL >= 0 holds.
        logs = (logs - logs.logsumexp(-1, keepdim=True)).flatten(2)
        masses = logs.exp()
        negentropy = (masses * logs).sum(-1).numpy().T  # (records, m)
        ab[:, prompts] += negentropy[grid.firsts] - grid.dot(masses, logs)
        ba[:, prompts] += negentropy[grid.seconds] - grid.dot(logs, masses)
    counts = np.array([s.rows.stop - s.rows.start for s in stack[0].slices])
    return np.maximum(ab / counts, 0.0), np.maximum(ba / counts, 0.0)  # below 0 only by rounding


def _logprobs(record: ProbeRecord) -> Tensor:
    assert record.logprobs is not None
    return record.logprobs


def _bucketed_divergences(stack: list[ProbeRecord], grid: _Grid) -> tuple[np.ndarray, np.ndarray]:
    ab = np.zeros((len(grid.firsts), stack[0].prompts))
    ba = np.zeros_like(ab)
    sizes = np.array([s.rows.stop - s.rows.start for s in stack[0].slices])
    starts = np.array([s.rows.start for s in stack[0].slices])
    for pair, (first, second) in enumerate(zip(grid.firsts, grid.seconds, strict=True)):
        one, other = _bucketed(stack[first], stack[second])  # (P,) each
        ab[pair] = np.add.reduceat(one, starts) / sizes
        ba[pair] = np.add.reduceat(other, starts) / sizes
    return np.maximum(ab, 0.0), np.maximum(ba, 0.0)


def _bucketed(a: ProbeRecord, b: ProbeRecord) -> tuple[np.ndarray, np.ndarray]:
    """Both KLs per position over the tokens that both records kept and one bucket for the rest, float64."""
    a_ids, a_logs, a_tail = _normalised_top(a)
    b_ids, b_logs, b_tail = _normalised_top(b)
    place = torch.searchsorted(b_ids, a_ids).clamp_(max=b_ids.shape[1] - 1)  # (P, k): both are ascending
    common = b_ids.gather(1, place) == a_ids
    b_at_a = b_logs.gather(1, place)
    in_common = torch.zeros_like(b_ids, dtype=torch.bool).scatter_reduce(1, place, common, "amax")
    # What is not common joins the tail; sums of positive masses, so that no digits are lost.
    a_rest = a_tail.exp() + torch.where(common, 0.0, a_logs.exp()).sum(-1)
    b_rest = b_tail.exp() + torch.where(in_common, 0.0, b_logs.exp()).sum(-1)
    ratio = torch.where(common, a_logs - b_at_a, 0.0)
    rest = a_rest.log() - b_rest.log()
    ab = (torch.where(common, a_logs.exp(), 0.0) * ratio).sum(-1) + a_rest * rest
    ba = -(torch.where(common, b_at_a.exp(), 0.0) * ratio).sum(-1) - b_rest * rest
    return ab.numpy(), ba.numpy()


def _normalised_top(record: ProbeRecord) -> tuple[Tensor, Tensor, Tensor]:
    assert record.top_ids is not None
    assert record.top_logprobs is not None
    assert record.tail_logprobs is not None
    logs = torch.cat([record.top_logprobs, record.tail_logprobs[:, None]], dim=1).double()
    logs = logs - logs.logsumexp(-1, keepdim=True)
    return record.top_ids.contiguous(), logs[:, :-1], logs[:, -1]


def _cosines(stack: list[ProbeRecord], grid: _Grid, what: str) -> np.ndarray:
    """Cosines per pair, layer, head (one for hidden states) and prompt: (pairs, l, h, N), flattened over positions."""
    # Hidden states (l, P, d) become (l, 1, P, d) and attention (l, h, Q) becomes (l, h, Q, 1).
    axis = 1 if what == "hidden" else 3
    tensors = [getattr(record, what).unsqueeze(axis) for record in stack]
    places = [s.rows if what == "hidden" else s.packed for s in stack[0].slices]
    layers, heads, _, width = tensors[0].shape
    shape = (layers, heads, stack[0].prompts)
    dots, squares = np.zeros((len(grid.firsts), *shape)), np.zeros((len(stack), *shape))
    # As many layers at once as leave room for a prompt.
    longest = max(place.stop - place.start for place in places)
    step = max(1, min(layers, _BUDGET // (8 * len(stack) * heads * width * longest)))
    for first in range(0, layers, step):
        group = slice(first, first + step)
        for prompts, entries in _tiles(places, len(stack) * step * heads * width):
            # (layers of the group, h, m, records, n · width), float64
            numbers = torch.stack([t[group][:, :, entries].flatten(3) for t in tensors], dim=3).double()
            dots[:, group, :, prompts] += grid.dot(numbers, numbers)
            squares[:, group, :, prompts] += np.moveaxis(numbers.square().sum(-1).numpy(), -1, 0)
    return _cosine(dots, squares[grid.firsts], squares[grid.seconds])


def _cosine(dots: np.ndarray, a_squares: np.ndarray, b_squares: np.ndarray) -> np.ndarray:
    """Cosine in [-1, 1]; 1 for two zero vectors (they are equal), 0 for one."""
    products = np.sqrt(a_squares) * np.sqrt(b_squares)
    safe = np.where(products > 0, products, 1.0)
    both_zero = (a_squares == 0) & (b_squares == 0)
    return np.where(both_zero, 1.0, np.where(products > 0, np.clip(dots / safe, -1.0, 1.0), 0.0))


def _rows(
    records: Mapping[str, ProbeRecord],
    pairs: Sequence[tuple[str, str]],
    metric: str,
    values: np.ndarray,
    layers: np.ndarray,
    heads: np.ndarray,
) -> pl.DataFrame:
    """Summaries over prompts; values are (pairs, layers, heads, N) float64."""
    low, middle, high, top = np.quantile(values, (0.25, 0.5, 0.75, 0.9), axis=-1, method="linear")
    cells = len(layers) * len(heads)
    return pl.DataFrame(
        {
            "a": np.repeat(np.array([a for a, _ in pairs], dtype=object), cells),
            "b": np.repeat(np.array([b for _, b in pairs], dtype=object), cells),
            "metric": [metric] * (cells * len(pairs)),
            "layer": np.tile(np.repeat(layers, len(heads)), len(pairs)),
            "head": np.tile(heads, len(pairs) * len(layers)),
            "mean": values.mean(-1).ravel(),
            "median": middle.ravel(),
            "q25": low.ravel(),
            "q75": high.ravel(),
            "q90": top.ravel(),
            "prompts": np.full(cells * len(pairs), values.shape[-1]),
            "a_fingerprint": np.repeat(np.array([records[a].fingerprint for a, _ in pairs], dtype=object), cells),
            "b_fingerprint": np.repeat(np.array([records[b].fingerprint for _, b in pairs], dtype=object), cells),
        },
        schema=_SCHEMA,
    )
