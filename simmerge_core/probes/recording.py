"""Running a model over probe prompts and keeping what App. B.2 compares."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from simmerge_core.catalog.model import ProbeSettings
from simmerge_core.errors import ProbeError
from simmerge_core.probes.one_thread import one_thread
from simmerge_core.probes.record import ProbeRecord, PromptSlice, number_type, prompt_slices
from simmerge_core.probes.size import kept_layers

Progress = Callable[[str, float], None]


def record_probes(
    model: Any,
    tokenizer: Any,
    prompts: Sequence[str],
    *,
    settings: ProbeSettings | None = None,
    batch_size: int = 16,
    device: str = "cpu",
    checkpoint: str = "(unnamed)",
    task: str = "(unnamed)",
    progress: Progress | None = None,
) -> ProbeRecord:
    """Run `model` teacher-forced over the bare prompts and keep distributions, hidden states and attention (App. B.2).

    Prompts are encoded as lm-eval encodes a context: the tokenizer's own beginning-of-sequence handling, none added
    where the text starts with it; one longer than the model's positions loses its beginning. Logits become
    log-softmax in float32 whatever the model's dtype. Padding goes to the right and is masked, so that the batch
    size changes nothing but the last bits; on the CPU one thread is used, so that a given batch size always gives
    the same bytes. Attention and hidden states are reduced layer by layer, as the forward pass reaches them.

    Parameters
    ----------
    model, tokenizer
        A causal language model of transformers, and its tokenizer.
    prompts
        Texts; the first ``settings.count`` are used.
    settings
        What is kept; the defaults when None.
    batch_size
        Prompts per forward pass. Attention needs batch · heads · tokens² numbers of one layer at a time.
    device
        Where the model is run; it stays there. The record is on the CPU.
    checkpoint, task
        Named in errors.
    progress
        Called with a message and the fraction done.

    Raises
    ------
    ProbeError
        No prompts, an empty prompt, logits or hidden states that are not finite, or a model whose blocks or attention
        patterns cannot be read.
    """
    settings = settings or ProbeSettings()
    chosen = list(prompts[: settings.count])
    where = f"checkpoint {checkpoint!r} on task {task!r}"
    if not chosen:
        raise ProbeError(f"There are no prompts for {where}: give the task a probe file with at least one prompt.")
    ids = [_encode(tokenizer, text) for text in chosen]
    positions = getattr(model.config, "max_position_embeddings", None)
    ids = [text[-positions:] if positions else text for text in ids]
    for number, row in enumerate(ids):
        if not row:
            raise ProbeError(f"Prompt {number} for {where} is empty: remove it or fill it.")
    model.to(device).eval()
    collector = _Collector(settings, [len(row) for row in ids], layers=_block_count(model), where=where)
    # Prompts of similar length share a batch; the order is fixed by (length, number).
    order = sorted(range(len(ids)), key=lambda number: (len(ids[number]), number))
    pinned = one_thread() if torch.device(device).type == "cpu" else nullcontext()
    with torch.inference_mode(), pinned, _eager(model), collector.attached(model):
        for start in range(0, len(order), batch_size):
            batch = order[start : start + batch_size]
            if progress is not None:
                progress(f"probes of {where}", start / len(order))
            longest = max(len(ids[n]) for n in batch)
            tokens = torch.zeros((len(batch), longest), dtype=torch.long, device=device)  # (B, T)
            mask = torch.zeros_like(tokens)
            for place, number in enumerate(batch):
                tokens[place, : len(ids[number])] = torch.tensor(ids[number])
                mask[place, : len(ids[number])] = 1
            collector.begin(batch, tokens)
            collector.keep_distributions(model(input_ids=tokens, attention_mask=mask, use_cache=False).logits)
    if progress is not None:
        progress(f"probes of {where}", 1.0)
    return collector.record(ids)


def _encode(tokenizer: Any, text: str) -> list[int]:
    """Token ids as lm-eval's Hugging Face model gives them for a context."""
    prefix = tokenizer.bos_token_id if tokenizer.bos_token_id is not None else tokenizer.eos_token_id
    start = tokenizer.decode(prefix) if prefix is not None else ""
    if start and text.startswith(start):
        return list(tokenizer.encode(text, add_special_tokens=False))
    return list(tokenizer.encode(text))


def _block_count(model: nn.Module) -> int:
    return len(_blocks(model))


def _blocks(model: Any) -> nn.ModuleList:
    count = model.config.get_text_config().num_hidden_layers
    for module in model.modules():
        if isinstance(module, nn.ModuleList) and len(module) == count:
            return module
    raise ProbeError(
        f"{type(model).__name__} has no list of {count} transformer blocks: probes support decoder-only models."
    )


def _attention_of(block: nn.Module) -> nn.Module:
    for module in block.modules():
        if type(module).__name__.endswith("Attention"):
            return module
    raise ProbeError(f"Block {type(block).__name__} has no attention module: probes support transformer blocks.")


@contextmanager
def _eager(model: Any) -> Iterator[None]:
    """Attention that returns its pattern; fused kernels do not."""
    before = model.config._attn_implementation
    if before == "eager":
        yield
        return
    model.set_attn_implementation("eager")
    try:
        yield
    finally:
        model.set_attn_implementation(before)


_CHUNK = 1 << 24
"""Logits that are made log-probabilities at a time."""


class _Collector:
    """Receives what each block computes for a batch and puts it, reduced, into the record's tensors."""

    def __init__(self, settings: ProbeSettings, lengths: list[int], *, layers: int, where: str) -> None:
        self.settings = settings
        self.lengths = lengths
        self.layers = kept_layers(settings, layers)
        self.where = where
        self.slices: list[PromptSlice] = list(prompt_slices(settings, lengths))
        self.dtype = number_type(settings)
        self.tensors: dict[str, Tensor] = {}
        self.vocabulary = 0
        self.signals = torch.zeros((3, len(lengths)), dtype=torch.float64)  # nll, entropy, last entropy

    @contextmanager
    def attached(self, model: Any) -> Iterator[None]:
        """Hook every kept block: its output is the post-residual hidden state, before any final norm."""
        with ExitStack() as stack:
            for index, layer in enumerate(self.layers):
                block = _blocks(model)[layer]
                for module, keep in ((block, self._keep_hidden), (_attention_of(block), self._keep_attention)):
                    handle = module.register_forward_hook(
                        lambda _module, _inputs, output, keep=keep, index=index: keep(index, output)
                    )
                    stack.callback(handle.remove)
            yield

    def begin(self, batch: list[int], tokens: Tensor) -> None:
        """Take the prompt numbers of the next forward pass and its token ids (B, T), padded on the right."""
        self.batch, self.tokens = batch, tokens
        lengths = torch.tensor([self.lengths[n] for n in batch], device=tokens.device)
        position = torch.arange(tokens.shape[1], device=tokens.device)
        self.valid = position < lengths[:, None]  # (B, T)
        kept = torch.tensor([_extent(self.slices[n].rows) for n in batch], device=tokens.device)
        self.kept = self.valid & (position >= (lengths - kept)[:, None])  # (B, T)
        self.causal = self.kept[:, :, None] & (position <= position[:, None])  # (B, T, T)
        # Where the kept rows and attention entries of the batch, one prompt after the other, lie in the record.
        self.rows = _places([self.slices[n].rows for n in batch])
        self.packed = _places([self.slices[n].packed for n in batch])

    def _store(self, name: str, shape: tuple[int, ...], dtype: torch.dtype | None = None) -> Tensor:
        if name not in self.tensors:
            self.tensors[name] = torch.zeros(shape, dtype=dtype or self.dtype)
        return self.tensors[name]

    def _keep_hidden(self, index: int, output: Any) -> None:
        hidden = output[0] if isinstance(output, tuple) else output  # (B, T, d)
        # Root mean square over kept positions in float32; padding is left out, whatever it holds.
        numbers = hidden.float().masked_fill(~self.kept[..., None], 0.0)
        scale = (numbers.square().mean(-1).sum(-1) / self.kept.sum(-1)).sqrt()  # (B,)
        if not torch.isfinite(scale).all():
            raise ProbeError(self._not_finite(f"hidden states of layer {self.layers[index]}"))
        numbers = numbers / torch.where(scale > 0, scale, 1.0)[:, None, None]
        store = self._store("hidden", (len(self.layers), self.slices[-1].rows.stop, hidden.shape[-1]))
        store[index, self.rows] = numbers[self.kept].to("cpu", self.dtype)

    def _keep_attention(self, index: int, output: Any) -> None:
        pattern = output[1] if isinstance(output, tuple) and len(output) > 1 else None  # (B, h, T, T)
        if pattern is None:
            raise ProbeError(
                f"The attention of {self.where} gives no pattern: its class does not support eager attention."
            )
        store = self._store("attention", (len(self.layers), pattern.shape[1], self.slices[-1].packed.stop))
        store[index][:, self.packed] = pattern.transpose(0, 1)[:, self.causal].to("cpu", self.dtype)

    def keep_distributions(self, logits: Tensor) -> None:
        """Take the batch's logits (B, T, V)."""
        self.vocabulary = logits.shape[-1]
        following = torch.nn.functional.pad(self.tokens[:, 1:], (0, 1))[self.valid]  # (valid,)
        kept, flat = self.kept[self.valid], logits[self.valid]  # (valid,), (valid, V)
        counts = [self.lengths[n] for n in self.batch]
        nll, entropy = torch.zeros((2, len(flat)), dtype=torch.float64)
        done = 0
        step = max(1, _CHUNK // self.vocabulary)
        for start in range(0, len(flat), step):
            part = slice(start, start + step)
            if not torch.isfinite(flat[part]).all():
                raise ProbeError(self._not_finite("logits"))
            logprobs = torch.log_softmax(flat[part].float(), dim=-1)  # (n, V), float32
            nll[part] = -logprobs.gather(1, following[part, None])[:, 0].double().cpu()
            entropy[part] = -(logprobs.exp() * logprobs).sum(-1, dtype=torch.float64).cpu()  # summed in float64
            chosen = logprobs[kept[part]]
            self._store_logprobs(self.rows[done : done + len(chosen)], chosen)
            done += len(chosen)
        for number, own_nll, own_entropy in zip(self.batch, nll.split(counts), entropy.split(counts), strict=True):
            # The last position has no next token within the prompt.
            self.signals[0, number] = own_nll[:-1].mean() if len(own_nll) > 1 else 0.0
            self.signals[1, number] = own_entropy.mean()
            self.signals[2, number] = own_entropy[-1]

    def _store_logprobs(self, rows: Tensor, logprobs: Tensor) -> None:
        top, total = self.settings.top_logits, self.slices[-1].rows.stop
        if top is None or top >= self.vocabulary:
            self._store("logprobs", (total, self.vocabulary))[rows] = logprobs.to("cpu", self.dtype)
            return
        ids = logprobs.topk(top, dim=-1).indices.sort(-1).values  # (n, k) ascending
        rest = logprobs.scatter(1, ids, -torch.inf).logsumexp(-1)  # (n,) float32
        self._store("top_ids", (total, top), torch.int32)[rows] = ids.to("cpu", torch.int32)
        self._store("top_logprobs", (total, top))[rows] = logprobs.gather(1, ids).to("cpu", self.dtype)
        self._store("tail_logprobs", (total,))[rows] = rest.to("cpu", self.dtype)

    def _not_finite(self, what: str) -> str:
        return f"The {what} of {self.where} are not finite: its weights are damaged or overflow in their dtype."

    def record(self, ids: list[list[int]]) -> ProbeRecord:
        """The finished record."""
        return ProbeRecord(
            settings=self.settings,
            layers=self.layers,
            vocabulary=self.vocabulary,
            tokens=torch.tensor([token for row in ids for token in row], dtype=torch.int32),
            lengths=torch.tensor(self.lengths, dtype=torch.int32),
            nll=self.signals[0].clone(),
            entropy=self.signals[1].clone(),
            last_entropy=self.signals[2].clone(),
            hidden=self.tensors["hidden"],
            attention=self.tensors["attention"],
            logprobs=self.tensors.get("logprobs"),
            top_ids=self.tensors.get("top_ids"),
            top_logprobs=self.tensors.get("top_logprobs"),
            tail_logprobs=self.tensors.get("tail_logprobs"),
        )


def _extent(place: slice) -> int:
    return int(place.stop - place.start)


def _places(slices: list[slice]) -> Tensor:
    """All indices of the slices, one after the other."""
    return torch.cat([torch.arange(place.start, place.stop) for place in slices])
