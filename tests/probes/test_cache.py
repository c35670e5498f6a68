"""Saving, loading and finding records."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from simmerge_core.catalog import ProbeSettings
from simmerge_core.errors import ProbeError
from simmerge_core.probes import ProbeRecord, cached, cached_checkpoints, is_cached, probe_path, record_probes
from simmerge_core.tables import DataRoot


@pytest.mark.parametrize("settings", [ProbeSettings(), ProbeSettings(top_logits=4, precision="float16", every_layer=2)])
def test_round_trip(model: Any, tokenizer: Any, prompts: list[str], tmp_path: Path, settings: ProbeSettings) -> None:
    record = record_probes(model, tokenizer, prompts, settings=settings)
    saved = record.save(tmp_path / "deep" / "probe.safetensors", fingerprint="f", probe_key="k")
    loaded = ProbeRecord.load(tmp_path / "deep" / "probe.safetensors", fingerprint="f", probe_key="k")
    assert (loaded.settings, loaded.layers, loaded.vocabulary) == (settings, record.layers, record.vocabulary)
    assert (loaded.fingerprint, loaded.probe_key) == ("f", "k") == (saved.fingerprint, saved.probe_key)
    assert loaded.slices == record.slices
    for name in ("tokens", "lengths", "hidden", "attention", "nll", "entropy", "last_entropy"):
        assert torch.equal(getattr(loaded, name), getattr(record, name))
    assert sorted(file.name for file in (tmp_path / "deep").iterdir()) == ["probe.safetensors"]


def test_cache_is_found_by_checkpoint_and_task(model: Any, tokenizer: Any, prompts: list[str], tmp_path: Path) -> None:
    root = DataRoot(tmp_path)
    assert cached_checkpoints(root, "math") == []
    record = record_probes(model, tokenizer, prompts)
    for checkpoint, task in (("b-1", "math"), ("a-1", "math"), ("a-1", "rag")):
        record.save(probe_path(root, checkpoint, task), fingerprint="f", probe_key="k")
    assert probe_path(root, "a-1", "rag") == (
        tmp_path / "probe_activations" / "checkpoint=a-1" / "task=rag" / "probe.safetensors"
    )
    assert cached_checkpoints(root, "math") == ["a-1", "b-1"]
    assert is_cached(root, "a-1", "rag")
    assert not is_cached(root, "b-1", "rag")
    assert cached(root, "a-1", "rag", fingerprint="f", probe_key="k").prompts == len(prompts)
    with pytest.raises(ProbeError, match="'b-1' has no probe record on task 'rag'"):
        cached(root, "b-1", "rag")
    with pytest.raises(ProbeError, match=r"'a-1' on task 'rag': .*checkpoint with fingerprint f, not other"):
        cached(root, "a-1", "rag", fingerprint="other")
    with pytest.raises(ProbeError, match=r"'a-1' on task 'rag': .*probe set with key k, not z"):
        cached(root, "a-1", "rag", probe_key="z")


def test_damaged_and_foreign_files_are_named(model: Any, tokenizer: Any, prompts: list[str], tmp_path: Path) -> None:
    from safetensors.torch import save_file

    path = tmp_path / "probe.safetensors"
    with pytest.raises(ProbeError, match="There is no probe record"):
        ProbeRecord.load(path)
    record_probes(model, tokenizer, prompts).save(path, fingerprint="f", probe_key="k")
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(ProbeError, match=r"probe\.safetensors is damaged"):
        ProbeRecord.load(path)
    save_file({"x": torch.zeros(1)}, path)
    with pytest.raises(ProbeError, match=r"probe\.safetensors is not of version"):
        ProbeRecord.load(path)
