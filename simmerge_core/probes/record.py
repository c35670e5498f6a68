"""What is kept of one model on one task's probes, and the file that holds it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from simmerge_core.catalog.model import ProbeSettings
from simmerge_core.errors import ProbeError
from simmerge_core.files import write_atomically
from simmerge_core.probes.prompts import RECORD_VERSION
from simmerge_core.probes.size import kept_positions, packed_attention
from simmerge_core.storage import Location, existing_copy, located


@dataclass(frozen=True)
class PromptSlice:
    """Where one prompt lies in a record: `rows` of hidden states and distributions, `packed` entries of attention."""

    rows: slice
    packed: slice


@dataclass(frozen=True)
class ProbeRecord:
    """One model's outputs on a task's probes (App. B.2), prompts laid end to end.

    N prompts; P kept positions in all; l kept layers of width d with h heads; Q packed attention entries per head; V
    logits. Numbers are of ``settings.precision`` unless said otherwise.

    Attributes
    ----------
    layers
        Indices of the kept blocks, ascending.
    vocabulary
        V.
    tokens, lengths
        Token ids of the whole prompts (int32, one after the other), and tokens per prompt (N,) int32.
    hidden
        (l, P, d): post-residual hidden states, before any final norm, each prompt and layer scaled to a root mean
        square of 1 (cosines do not see it, and float16 then neither overflows nor underflows).
    attention
        (l, h, Q): attention patterns, rows of the kept positions, each up to its own diagonal.
    logprobs
        (P, V): log-softmax of the logits in nat; None when only the most probable tokens are kept.
    top_ids, top_logprobs, tail_logprobs
        (P, k) int32 ascending token ids of the k most probable tokens, their log-probabilities (P, k), and the log of
        the mass of all others (P,); None when all tokens are kept.
    nll, entropy, last_entropy
        (N,) float64, in nat, over all positions whatever is kept: mean negative log-likelihood of the prompt's own next
        tokens (0 for a prompt of one token), mean predictive entropy, and the entropy at the last position.
    fingerprint, probe_key
        Of the checkpoint, and of the probe set with its settings; empty until saved.
    """

    settings: ProbeSettings
    layers: tuple[int, ...]
    vocabulary: int
    tokens: Tensor
    lengths: Tensor
    hidden: Tensor
    attention: Tensor
    nll: Tensor
    entropy: Tensor
    last_entropy: Tensor
    logprobs: Tensor | None = None
    top_ids: Tensor | None = None
    top_logprobs: Tensor | None = None
    tail_logprobs: Tensor | None = None
    fingerprint: str = ""
    probe_key: str = ""

    @property
    def prompts(self) -> int:
        """Number of prompts, N."""
        return len(self.lengths)

    @property
    def heads(self) -> int:
        """Attention heads per layer, h."""
        return self.attention.shape[1]

    @cached_property
    def slices(self) -> tuple[PromptSlice, ...]:
        """Where each prompt lies, in prompt order."""
        return tuple(prompt_slices(self.settings, self.lengths.tolist()))

    def first(self, count: int) -> ProbeRecord:
        """The record that the first `count` prompts alone would have given; not of any probe set, so without keys."""
        if not 1 <= count <= self.prompts:
            raise ProbeError(f"A record of {self.prompts} prompts has no first {count}: ask for 1 to {self.prompts}.")
        last = self.slices[count - 1]
        rows, entries = last.rows.stop, last.packed.stop
        tokens = int(self.lengths[:count].sum())

        def cut(tensor: Tensor | None) -> Tensor | None:
            return None if tensor is None else tensor[:rows]

        return replace(
            self,
            tokens=self.tokens[:tokens],
            lengths=self.lengths[:count],
            hidden=self.hidden[:, :rows],
            attention=self.attention[:, :, :entries],
            logprobs=cut(self.logprobs),
            top_ids=cut(self.top_ids),
            top_logprobs=cut(self.top_logprobs),
            tail_logprobs=cut(self.tail_logprobs),
            nll=self.nll[:count],
            entropy=self.entropy[:count],
            last_entropy=self.last_entropy[:count],
            fingerprint="",
            probe_key="",
        )

    @property
    def bytes(self) -> int:
        """Bytes of all tensors."""
        return sum(t.numel() * t.element_size() for t in self._tensors().values())

    def _tensors(self) -> dict[str, Tensor]:
        return {name: tensor for name in _TENSORS if (tensor := getattr(self, name)) is not None}

    def save(self, path: str | Location, *, fingerprint: str, probe_key: str) -> ProbeRecord:
        """Write the record as safetensors, atomically, and return it with its fingerprint and key.

        Parameters
        ----------
        path
            File to write or replace.
        fingerprint, probe_key
            What the record was computed from; `load` refuses a record of anything else.
        """
        from safetensors.torch import save_file

        record = replace(self, fingerprint=fingerprint, probe_key=probe_key)
        metadata = {
            "format": "simmerge-probe-record",
            "version": str(RECORD_VERSION),
            "fingerprint": fingerprint,
            "probe_key": probe_key,
            "settings": self.settings.model_dump_json(),
            "layers": json.dumps(self.layers),
            "vocabulary": str(self.vocabulary),
        }
        with write_atomically(located(path)) as temporary:
            save_file({k: v.contiguous() for k, v in record._tensors().items()}, temporary, metadata=metadata)
        return record

    @classmethod
    def load(cls, path: str | Location, *, fingerprint: str | None = None, probe_key: str | None = None) -> ProbeRecord:
        """Read a record that `save` wrote.

        Parameters
        ----------
        fingerprint, probe_key
            What the record must have been computed from; None accepts any.

        Raises
        ------
        ProbeError
            Naming the file: missing, damaged, of another version, or of another checkpoint or probe set.
        """
        from safetensors import SafetensorError, safe_open

        path = located(path)
        copy = existing_copy(path)
        if copy is None:
            raise ProbeError(f"There is no probe record {path}: record the probes of this checkpoint and task first.")
        try:
            with safe_open(copy, framework="pt") as file:
                metadata = file.metadata() or {}
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
        except (SafetensorError, OSError) as error:
            raise ProbeError(
                f"Probe record {path} is damaged ({error}): delete it and record the probes again."
            ) from error
        if metadata.get("format") != "simmerge-probe-record" or metadata.get("version") != str(RECORD_VERSION):
            raise ProbeError(
                f"Probe record {path} is not of version {RECORD_VERSION}: delete it and record the probes again."
            )
        for what, wanted, found in (
            ("checkpoint with fingerprint", fingerprint, metadata["fingerprint"]),
            ("probe set with key", probe_key, metadata["probe_key"]),
        ):
            if wanted is not None and wanted != found:
                raise ProbeError(
                    f"Probe record {path} was computed from the {what} {found[:12]}, not {wanted[:12]}: "
                    "record the probes again."
                )
        return cls(
            settings=ProbeSettings.model_validate_json(metadata["settings"]),
            layers=tuple(json.loads(metadata["layers"])),
            vocabulary=int(metadata["vocabulary"]),
            fingerprint=metadata["fingerprint"],
            probe_key=metadata["probe_key"],
            **tensors,
        )


_TENSORS = (
    "tokens",
    "lengths",
    "hidden",
    "attention",
    "logprobs",
    "top_ids",
    "top_logprobs",
    "tail_logprobs",
    "nll",
    "entropy",
    "last_entropy",
)


def prompt_slices(settings: ProbeSettings, lengths: list[int]) -> Iterator[PromptSlice]:
    """Where prompts of these token counts lie in a record."""
    row = entry = 0
    for tokens in lengths:
        rows, packed = kept_positions(settings, tokens), packed_attention(settings, tokens)
        yield PromptSlice(slice(row, row + rows), slice(entry, entry + packed))
        row, entry = row + rows, entry + packed


def number_type(settings: ProbeSettings) -> torch.dtype:
    """The torch dtype of ``settings.precision``."""
    return torch.float16 if settings.precision == "float16" else torch.float32
