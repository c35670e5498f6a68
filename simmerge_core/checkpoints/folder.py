"""A checkpoint folder, opened by its headers and read in chunks of bounded size."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from simmerge_core.checkpoints.header import DTYPE_NAMES, TensorEntry, item_bytes, read_header
from simmerge_core.checkpoints.naming import layer_and_module
from simmerge_core.errors import CheckpointError

if TYPE_CHECKING:
    from torch import Tensor

SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"
_PICKLES = (".bin", ".pt", ".pth", ".ckpt")
# Names of one setting in the configs of different architectures.
_LAYERS = ("num_hidden_layers", "n_layer", "num_layers")
_WIDTH = ("hidden_size", "n_embd", "d_model")
_VOCABULARY = ("vocab_size",)


@dataclass(frozen=True)
class CheckpointFolder:
    """An immutable Hugging Face folder of safetensors, known by its headers and config.

    Attributes
    ----------
    name
        Catalog id or folder name; used in every message.
    path
        The folder.
    config
        Parsed ``config.json``.
    tensors
        Entries by name, in file-offset order, shards in name order. A head that a tied checkpoint stores as well is
        left out: the embedding is that head.
    """

    name: str
    path: Path
    config: Mapping[str, Any]
    tensors: Mapping[str, TensorEntry]
    tied_copies: Mapping[str, TensorEntry] = field(default_factory=dict)

    @cached_property
    def parameters(self) -> int:
        """Number of parameters stored."""
        return sum(e.size for e in self.tensors.values())

    @cached_property
    def bytes(self) -> int:
        """Bytes of all tensors."""
        return sum(e.end - e.begin for e in self.tensors.values())

    @cached_property
    def dtype(self) -> str:
        """Storage dtype of most parameters, e.g. ``"bfloat16"``."""
        counts: Counter[str] = Counter()
        for entry in self.tensors.values():
            counts[entry.dtype] += entry.size
        dtype = max(counts, key=lambda d: (counts[d], d))
        return DTYPE_NAMES.get(dtype, dtype.lower())

    @property
    def tied(self) -> bool:
        """Whether the output head is the embedding."""
        return _is_tied(self.config, self.tensors)

    @property
    def architecture(self) -> str:
        """Class named in the config, e.g. ``LlamaForCausalLM``."""
        named = self.config.get("architectures") or [self.config.get("model_type", "unknown")]
        return str(named[0] if isinstance(named, list) else named)

    @cached_property
    def layers(self) -> int:
        """Number of transformer blocks."""
        return int(self._setting(*_LAYERS) or self._blocks)

    @cached_property
    def width(self) -> int:
        """Hidden size."""
        embedding = self._embedding
        return int(self._setting(*_WIDTH) or (embedding.shape[-1] if embedding else 0))

    @cached_property
    def vocabulary(self) -> int:
        """Rows of the embedding."""
        embedding = self._embedding
        return int(embedding.shape[0] if embedding else self._setting(*_VOCABULARY) or 0)

    @property
    def _blocks(self) -> int:
        return 1 + max((layer_and_module(n)[0] for n in self.tensors), default=-1)

    @property
    def _embedding(self) -> TensorEntry | None:
        return next((self.tensors[n] for n in embedding_names(self.tensors)), None)

    def _setting(self, *names: str) -> Any:
        nested = self.config.get("text_config")
        for source in (self.config, nested if isinstance(nested, dict) else {}):
            for name in names:
                if source.get(name) is not None:
                    return source[name]
        return None

    def read(self, name: str) -> Tensor:
        """One whole tensor, in its stored dtype and shape."""
        entry = self._entry(name)
        return self._read(entry, 0, entry.size).reshape(entry.shape)

    def read_chunk(self, name: str, start: int, stop: int) -> Tensor:
        """Flat coordinates ``[start, stop)`` of a tensor, 1-D, in its stored dtype.

        Reads exactly these bytes into fresh memory; nothing is mapped, so resident memory is what the caller holds.

        Raises
        ------
        CheckpointError
            If the tensor does not exist, or the file has become shorter since it was opened.
        """
        entry = self._entry(name)
        if not 0 <= start <= stop <= entry.size:
            raise CheckpointError(
                f"Checkpoint {self.name!r}: tensor {name!r} has {entry.size} coordinates, not [{start}, {stop})."
            )
        return self._read(entry, start, stop)

    def _entry(self, name: str) -> TensorEntry:
        try:
            return self.tensors[name]
        except KeyError:
            if name in self.tied_copies:
                return self.tied_copies[name]
            raise CheckpointError(
                f"Checkpoint {self.name!r} has no tensor {name!r}: it was saved from another architecture."
            ) from None

    def _read(self, entry: TensorEntry, start: int, stop: int) -> Tensor:
        import torch

        from simmerge_core.checkpoints.dtypes import torch_dtype, writable_bytes

        values = torch.empty(stop - start, dtype=torch_dtype(entry.dtype))
        if stop == start:
            return values
        view = writable_bytes(values)
        position = entry.begin + start * item_bytes(entry.dtype)
        handle = os.open(entry.file, os.O_RDONLY)
        try:
            while view:
                count = os.preadv(handle, [view], position)
                if count <= 0:
                    raise CheckpointError(
                        f"Checkpoint {self.name!r}: {entry.file.name} ends inside tensor {entry.name!r}; it "
                        "changed while "
                        "it was read: copy or download it again."
                    )
                view, position = view[count:], position + count
        finally:
            os.close(handle)
        return values


def embedding_names(tensors: Mapping[str, Any]) -> list[str]:
    """Names of token embedding matrices (not positional ones), in order."""
    endings = (
        "embed_tokens.weight",
        "wte.weight",
        "embed_in.weight",
        "word_embeddings.weight",
        "tok_embeddings.weight",
    )
    return [n for n in tensors if n.endswith(endings)]


HEADS = ("lm_head.weight", "embed_out.weight")


def _is_tied(config: Mapping[str, Any], tensors: Mapping[str, Any]) -> bool:
    # A saved config may leave the field out where it equals the class's default: then what is stored decides.
    stated = config.get("tie_word_embeddings")
    return bool(stated) if stated is not None else not any(n.endswith(HEADS) for n in tensors)


def open_checkpoint(path: Path, *, name: str | None = None) -> CheckpointFolder:
    """Open a checkpoint by its config and safetensors headers; no weight is read.

    Parameters
    ----------
    path
        Folder with ``config.json`` and ``model.safetensors``, or shards named by ``model.safetensors.index.json``.
    name
        What messages call it; the folder's name by default.

    Raises
    ------
    CheckpointError
        If the folder is missing, holds pickled weights only, is an adapter, is quantised, or a header, index or
        config is damaged or incomplete.
    """
    path = Path(path)
    name = name or path.name or str(path)
    if not path.is_dir():
        raise CheckpointError(f"Checkpoint {name!r}: folder {path} does not exist: check the path.")
    files = _weight_files(path, name)
    config = _read_json(path / "config.json", name)
    if config.get("quantization_config"):
        raise CheckpointError(
            f"Checkpoint {name!r} is quantised: use its original float32, bfloat16 or float16 weights."
        )
    expected = _read_index(path, name) if files is None else None
    shards = files if files is not None else sorted({path / f for f in (expected or {}).values()})
    found: dict[str, TensorEntry] = {}
    for shard in shards:
        if not shard.is_file():
            raise CheckpointError(
                f"Checkpoint {name!r}: {INDEX} names {shard.name}, which is missing: download it again."
            )
        for entry in read_header(shard, name=name):
            if entry.name in found:
                raise CheckpointError(
                    f"Checkpoint {name!r}: tensor {entry.name!r} is in both {found[entry.name].file.name} and "
                    f"{shard.name}: save it again."
                )
            found[entry.name] = entry
    if expected is not None:
        _check_index(name, expected, found)
    if not found:
        raise CheckpointError(f"Checkpoint {name!r} has no tensors in {path}: save it again.")
    copies = (
        {n: e for n, e in found.items() if n.endswith(HEADS)}
        if _is_tied(config, found) and embedding_names(found)
        else {}
    )
    tensors = {n: e for n, e in found.items() if n not in copies}
    folder = CheckpointFolder(name, path, MappingProxyType(config), MappingProxyType(tensors), MappingProxyType(copies))
    _check_sizes(folder)
    return folder


def _check_sizes(folder: CheckpointFolder) -> None:
    """Refuse a config that promises more than is stored: a model would be built to it, however large, and then fail."""
    embedding = folder._embedding
    # A reshaped embedding keeps its size, and is refused by comparison with the base; here only size is the danger.
    for names, stored in (
        (_LAYERS, folder._blocks or None),
        (_VOCABULARY, None if embedding is None else embedding.size),
        (_WIDTH, None if embedding is None else embedding.size),
    ):
        value = folder._setting(*names)
        if value is None:
            continue
        whole = isinstance(value, int) and not isinstance(value, bool) and value > 0
        if not whole or (stored is not None and value > stored):
            what = "is not a positive whole number" if not whole else f"is more than the weights hold ({stored})"
            raise CheckpointError(
                f"Checkpoint {folder.name!r}: config.json says {names[0]} {value!r}, which {what}: copy the config "
                "that belongs to the weights."
            )


def _weight_files(path: Path, name: str) -> list[Path] | None:
    """The single weight file, or None where an index names shards."""
    if (path / SINGLE).is_file():
        return [path / SINGLE]
    if (path / INDEX).is_file():
        return None
    names = sorted(p.name for p in path.iterdir())
    if "adapter_model.safetensors" in names or "adapter_config.json" in names:
        raise CheckpointError(f"Checkpoint {name!r} is an adapter, not a model: fold it into its base and save that.")
    pickled = [n for n in names if n.endswith(_PICKLES)]
    if pickled:
        raise CheckpointError(
            f"Checkpoint {name!r} has only pickled weights ({pickled[0]}), which can run code when read: "
            "save it as safetensors (save_pretrained)."
        )
    raise CheckpointError(
        f"Checkpoint {name!r}: {path} holds neither {SINGLE} nor {INDEX}: it is not a complete checkpoint."
    )


def _read_json(file: Path, name: str) -> dict[str, Any]:
    if not file.is_file():
        raise CheckpointError(
            f"Checkpoint {name!r}: {file.name} is missing in {file.parent}: it is not a complete checkpoint."
        )
    try:
        value = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise CheckpointError(
            f"Checkpoint {name!r}: {file.name} is not valid JSON ({error}): copy it again."
        ) from error
    if not isinstance(value, dict):
        raise CheckpointError(f"Checkpoint {name!r}: {file.name} is not a JSON object: copy it again.")
    return value


def _read_index(path: Path, name: str) -> dict[str, str]:
    weight_map = _read_json(path / INDEX, name).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise CheckpointError(f"Checkpoint {name!r}: {INDEX} has no weight_map: save it again.")
    for tensor, file in weight_map.items():
        # A shard must be a file of this very folder: an index from elsewhere must not make us read other files.
        if not isinstance(file, str) or Path(file).name != file or "\\" in file or not file.endswith(".safetensors"):
            raise CheckpointError(
                f"Checkpoint {name!r}: {INDEX} puts tensor {tensor!r} into {file!r}, which is not a safetensors "
                "file of this folder."
            )
    return weight_map


def _check_index(name: str, expected: Mapping[str, str], found: Mapping[str, TensorEntry]) -> None:
    for tensor, file in expected.items():
        if tensor not in found or found[tensor].file.name != file:
            raise CheckpointError(
                f"Checkpoint {name!r}: {INDEX} puts tensor {tensor!r} into {file}, which does not hold it: save it "
                "again."
            )
    for tensor, entry in found.items():
        if tensor not in expected:
            raise CheckpointError(
                f"Checkpoint {name!r}: {entry.file.name} holds tensor {tensor!r}, which {INDEX} does not name: "
                "save it again."
            )
