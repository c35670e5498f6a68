"""Forward and hand-written backward of the small Llama on packed tokens.

At a quarter of a million parameters the time of a step goes to padding, copies and small operations as much as to
arithmetic. Linear layers run on real tokens only; norm gains are folded into the matrix that follows; what the backward
pass needs is kept in the form it needs it in. The result equals `transformers.LlamaForCausalLM` and its autograd
gradient (tests/demo/test_engine.py). Computation is in float32.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor

from simmerge_core.demo.layout import LayerViews, Views
from simmerge_core.demo.packing import Packed
from simmerge_core.demo.presets import Architecture


@cache
def _rotations(architecture: Architecture) -> Tensor:
    """exp(i * position * frequency) for the query and key heads of every position, (P, 2 * heads, D/2) complex64."""
    half = architecture.hidden // architecture.heads // 2
    frequencies = architecture.rope_theta ** (-torch.arange(half, dtype=torch.float32) / half)
    angles = torch.arange(architecture.positions, dtype=torch.float32)[:, None] * frequencies
    turns = torch.polar(torch.ones_like(angles), angles)
    return turns[:, None, :].expand(-1, 2 * architecture.heads, -1).contiguous()


@cache
def _causal(length: int) -> Tensor:
    return torch.full((length, length), float("-inf")).triu(1)  # (T, T), added to the scores


def _rotate(qkv: Tensor, turns: Tensor) -> None:
    """Rotate the query and key part of (N, 3H) in place."""
    tokens, heads, half = turns.shape
    pairs = qkv[:, : heads * half * 2].view(tokens, heads, half, 2)
    torch.view_as_complex(pairs).mul_(turns)


def _normalised(x: Tensor, epsilon: float) -> tuple[Tensor, Tensor]:
    scale = (x * x).mean(dim=-1, keepdim=True).add_(epsilon).rsqrt_()  # (N, 1)
    return x * scale, scale


def _normalised_backward(gradient: Tensor, normed: Tensor, scale: Tensor) -> Tensor:
    along = (gradient * normed).mean(dim=-1, keepdim=True)
    return gradient.addcmul_(normed, along, value=-1.0).mul_(scale)


@dataclass
class _LayerTape:
    normed: Tensor  # (N, H)
    scale: Tensor  # (N, 1)
    folded_qkv: Tensor  # (3H, H)
    heads_in: Tensor  # (3, R, D): queries, keys, values, laid out
    shares: list[Tensor]  # per group (B * heads, T, T): attention
    attended: Tensor  # (N, H)
    mlp_normed: Tensor
    mlp_scale: Tensor
    folded_gate_up: Tensor  # (2M, H)
    gate_up: Tensor  # (N, 2M)
    gate_sigmoid: Tensor  # (N, M)


class Engine:
    """Runs one architecture on one flat parameter buffer, whose later changes it sees."""

    def __init__(self, parameters: Tensor, architecture: Architecture) -> None:
        self.architecture = architecture
        self.views = Views.of(parameters, architecture)
        self.width = architecture.hidden // architecture.heads

    def _lay_out(self, packed: Tensor, rows: Tensor) -> Tensor:
        """(N, H) or (N, 3H) -> (R, D) or (3R, D), zeros where padded."""
        heads = packed.view(-1, self.width)
        return torch.cat([heads, heads.new_zeros(1, self.width)]).index_select(0, rows)

    def _layer(self, x: Tensor, layer: LayerViews, batch: Packed, turns: Tensor) -> tuple[Tensor, _LayerTape]:
        hidden, mlp, epsilon = self.architecture.hidden, self.architecture.mlp, self.architecture.norm_eps
        normed, scale = _normalised(x, epsilon)
        folded_qkv = layer.qkv * layer.input_norm
        qkv = normed @ folded_qkv.t()  # (N, 3H)
        _rotate(qkv, turns)
        heads_in = self._lay_out(qkv, batch.into_qkv).view(3, -1, self.width)
        shares, heads_out = [], torch.empty_like(heads_in[0])
        for group in batch.groups:
            query, key, value = (part[group.rows].view(-1, group.length, self.width) for part in heads_in)
            scores = torch.baddbmm(_causal(group.length), query, key.transpose(1, 2), alpha=self.width**-0.5)
            share = torch.softmax(scores, dim=-1)
            torch.bmm(share, value, out=heads_out[group.rows].view(-1, group.length, self.width))
            shares.append(share)
        attended = heads_out.index_select(0, batch.from_heads).view(-1, hidden)
        x = torch.addmm(x, attended, layer.output.t())
        mlp_normed, mlp_scale = _normalised(x, epsilon)
        folded_gate_up = layer.gate_up * layer.mlp_norm
        gate_up = mlp_normed @ folded_gate_up.t()
        sigmoid = torch.sigmoid(gate_up[:, :mlp])
        inner = (gate_up[:, :mlp] * sigmoid).mul_(gate_up[:, mlp:])
        x = torch.addmm(x, inner, layer.down.t())
        tape = _LayerTape(
            normed, scale, folded_qkv, heads_in, shares, attended,
            mlp_normed, mlp_scale, folded_gate_up, gate_up, sigmoid,
        )  # fmt: skip
        return x, tape

    def _layer_backward(
        self, gradient: Tensor, tape: _LayerTape, layer: LayerViews, out: LayerViews, batch: Packed, back_turns: Tensor
    ) -> Tensor:
        """Gradient (N, H) at the layer's output -> at its input; parameter gradients are written into `out`."""
        hidden, mlp = self.architecture.hidden, self.architecture.mlp
        gate, up = tape.gate_up[:, :mlp], tape.gate_up[:, mlp:]
        swish = gate * tape.gate_sigmoid
        torch.mm(gradient.t(), swish * up, out=out.down)
        inner = gradient @ layer.down  # (N, M)
        gate_up = torch.empty_like(tape.gate_up)
        torch.mul(inner, swish, out=gate_up[:, mlp:])
        # d swish / d gate = s + swish (1 - s)
        slope = torch.addcmul(tape.gate_sigmoid, swish, 1.0 - tape.gate_sigmoid)
        torch.mul(inner.mul_(up), slope, out=gate_up[:, :mlp])
        _folded_gradient(gate_up, tape.mlp_normed, layer.gate_up, layer.mlp_norm, out.gate_up, out.mlp_norm)
        gradient = gradient + _normalised_backward(gate_up @ tape.folded_gate_up, tape.mlp_normed, tape.mlp_scale)

        torch.mm(gradient.t(), tape.attended, out=out.output)
        heads_out = self._lay_out(gradient @ layer.output, batch.into_heads)  # (R, D)
        heads_in = torch.empty_like(tape.heads_in)
        for group, share in zip(batch.groups, tape.shares, strict=True):
            query, key, value = (part[group.rows].view(-1, group.length, self.width) for part in tape.heads_in)
            d_query, d_key, d_value = (part[group.rows].view(-1, group.length, self.width) for part in heads_in)
            d_out = heads_out[group.rows].view(-1, group.length, self.width)
            torch.bmm(share.transpose(1, 2), d_out, out=d_value)
            d_share = torch.bmm(d_out, value.transpose(1, 2))
            scores = torch._softmax_backward_data(d_share, share, -1, torch.float32).mul_(self.width**-0.5)
            torch.bmm(scores, key, out=d_query)
            torch.bmm(scores.transpose(1, 2), query, out=d_key)
        qkv = heads_in.view(-1, self.width).index_select(0, batch.from_qkv).view(-1, 3 * hidden)
        _rotate(qkv, back_turns)
        _folded_gradient(qkv, tape.normed, layer.qkv, layer.input_norm, out.qkv, out.input_norm)
        return gradient + _normalised_backward(qkv @ tape.folded_qkv, tape.normed, tape.scale)

    def _forward(self, batch: Packed) -> tuple[Tensor, Tensor, list[_LayerTape], Tensor]:
        turns = _rotations(self.architecture)[batch.positions]
        x = self.views.embedding.index_select(0, batch.tokens)
        tapes = []
        for layer in self.views.layers:
            x, tape = self._layer(x, layer, batch, turns)
            tapes.append(tape)
        normed, scale = _normalised(x, self.architecture.norm_eps)
        return normed, scale, tapes, turns

    def logits(self, batch: Packed) -> Tensor:
        """Next-token logits of every packed token, (N, V) float32."""
        normed, _, _, _ = self._forward(batch)
        return normed @ (self.views.head * self.views.norm).t()

    def gradient(self, batch: Packed, targets: Tensor, weights: Tensor, out: Tensor) -> Tensor:
        """Write the gradient of the weighted sum of cross-entropies into `out`.

        Parameters
        ----------
        targets, weights
            Shapes (N,): the token that follows each packed token, and its weight in the loss.
        out
            Flat gradient buffer (P,), overwritten.

        Returns
        -------
        Tensor
            Log-probabilities of all tokens, (N, V).
        """
        result = Views.of(out, self.architecture)
        normed, scale, tapes, turns = self._forward(batch)
        folded = self.views.head * self.views.norm
        log_probabilities = torch.log_softmax(normed @ folded.t(), dim=-1)
        errors = log_probabilities.exp()  # (N, V)
        errors[torch.arange(len(targets)), targets] -= 1.0
        errors *= weights[:, None]
        _folded_gradient(errors, normed, self.views.head, self.views.norm, result.head, result.norm)
        gradient = _normalised_backward(errors @ folded, normed, scale)
        back_turns = turns.conj_physical()
        for layer, tape, layer_out in reversed(list(zip(self.views.layers, tapes, result.layers, strict=True))):
            gradient = self._layer_backward(gradient, tape, layer, layer_out, batch, back_turns)
        result.embedding.zero_().index_add_(0, batch.tokens, gradient)
        return log_probabilities


def _folded_gradient(
    outputs: Tensor, inputs: Tensor, matrix: Tensor, gain: Tensor, d_matrix: Tensor, d_gain: Tensor
) -> None:
    """Gradients of `matrix` and `gain` where inputs @ (matrix * gain).T was computed."""
    torch.mm(outputs.t(), inputs, out=d_matrix)
    torch.sum(d_matrix * matrix, dim=0, out=d_gain)
    d_matrix *= gain
