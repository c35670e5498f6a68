"""lm-eval's Hugging Face model with the log-likelihood path vectorised and its inputs prepared once.

Prompts never change while thousands of merged weights pass through one live model. So tokenisation, sorting,
grouping, padding and index arithmetic, which lm-eval repeats on every call, are done once here; what is left per
model is the forward pass and a handful of tensor operations per batch. Batches, padding and arithmetic are lm-eval's
own (`HFLM._loglikelihood_tokens`), and the results are equal to it bit by bit, which the tests check.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from lm_eval.models.huggingface import HFLM
from torch import Tensor
from torch.nn import functional

TokenRequest = tuple[Any, list[int], list[int]]  # (strings or None, context ids, continuation ids)


@dataclass(frozen=True)
class Batch:
    """One forward pass: padded inputs, and where the scored tokens of each request lie in its logits."""

    inputs: Tensor  # (B, T) int64, padded on the right
    rows: Tensor  # (N,) int64, row of each scored token
    positions: Tensor  # (N,) int64, position whose logits predict it
    targets: Tensor  # (N,) int64
    lengths: tuple[int, ...]  # scored tokens per request; sums to N
    requests: tuple[int, ...]  # index of each request among all


class LiveModel(HFLM):
    """`HFLM` over a model in memory whose weights may change between calls."""

    _recorded: list[TokenRequest] | None = None
    _recording = False

    def tokenised(self, instances: Sequence[Any]) -> list[TokenRequest]:
        """The token ids that lm-eval itself makes of log-likelihood requests."""
        self._recording = True
        try:
            self.loglikelihood(list(instances), disable_tqdm=True)
        finally:
            self._recording = False
        recorded, self._recorded = self._recorded, None
        assert recorded is not None
        return recorded

    def prepared(self, requests: Sequence[TokenRequest], *, batch_size: int) -> list[Batch]:
        """Sort, group and pad `requests` into batches exactly as `HFLM` does."""
        groups: dict[tuple[int, ...], list[int]] = defaultdict(list)
        for index, (_, context, continuation) in enumerate(requests):
            # Requests that differ in the last token only share one forward pass.
            groups[(*context, *continuation[:-1])].append(index)
        # The longest continuation stands for its group; longest inputs first, ties by token ids, then by order.
        chosen = [max(members, key=lambda i: len(requests[i][2])) for members in groups.values()]
        tokens = {i: requests[i][1] + requests[i][2] for i in chosen}
        members_of = dict(zip(chosen, groups.values(), strict=True))
        order = sorted(chosen, key=lambda i: (-len(tokens[i]), tuple(tokens[i])))
        return [
            self._batch([(tokens[i], members_of[i]) for i in order[start : start + batch_size]], requests)
            for start in range(0, len(order), batch_size)
        ]

    def _batch(self, rows: Sequence[tuple[list[int], list[int]]], requests: Sequence[TokenRequest]) -> Batch:
        inputs = [tokens[-(self.max_length + 1) :][:-1] for tokens, _ in rows]
        width = max(map(len, inputs))
        padded = torch.tensor([ids + [0] * (width - len(ids)) for ids in inputs], dtype=torch.long)
        at_row: list[int] = []
        at_position: list[int] = []
        targets: list[int] = []
        lengths: list[int] = []
        indices: list[int] = []
        for row, (ids, (_, members)) in enumerate(zip(inputs, rows, strict=True)):
            for index in members:
                continuation = requests[index][2]
                at_row += [row] * len(continuation)
                at_position += range(len(ids) - len(continuation), len(ids))
                targets += continuation
                lengths.append(len(continuation))
                indices.append(index)
        device = self.device
        return Batch(
            padded.to(device),
            torch.tensor(at_row, device=device),
            torch.tensor(at_position, device=device),
            torch.tensor(targets, device=device),
            tuple(lengths),
            tuple(indices),
        )

    def scored(self, batches: Sequence[Batch]) -> list[tuple[float, bool]]:
        """(log-likelihood in nat, whether greedy decoding gives it) of every request of `batches`, in request order."""
        answers: dict[int, tuple[float, bool]] = {}
        for batch in batches:
            logits = self._model_call(batch.inputs)[batch.rows, batch.positions]  # (N, V)
            logs = functional.log_softmax(logits, dim=-1, dtype=self.softmax_dtype)
            right = (logs.argmax(dim=-1) == batch.targets).split(batch.lengths)
            chosen = logs.gather(1, batch.targets[:, None]).squeeze(1).split(batch.lengths)
            for index, values, hits in zip(batch.requests, chosen, right, strict=True):
                answers[index] = (float(values.sum()), bool(hits.all()))
        return [answers[index] for index in range(len(answers))]

    def _loglikelihood_tokens(
        self, requests: list[TokenRequest], disable_tqdm: bool = False, override_bs: int | None = None
    ) -> list[tuple[float, bool]]:
        if self._recording:
            self._recorded = requests
            return [(0.0, False)] * len(requests)
        if self.backend != "causal" or not isinstance(self.batch_size, int):
            return super()._loglikelihood_tokens(requests, disable_tqdm=disable_tqdm, override_bs=override_bs)
        return self.scored(self.prepared(requests, batch_size=self.batch_size))

    def _model_call(self, inps: Tensor, attn_mask: Tensor | None = None, labels: Tensor | None = None) -> Tensor:
        if attn_mask is not None or labels is not None or self.mixed_precision_dtype is not None:
            return super()._model_call(inps, attn_mask=attn_mask, labels=labels)
        with torch.inference_mode():
            # No key-value cache: nothing is generated from this pass.
            return self.model(input_ids=inps, use_cache=False).logits
