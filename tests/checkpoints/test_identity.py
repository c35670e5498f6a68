"""Names of tensors, content hashes, compatibility, manifests, and where a catalog entry's files lie."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from llama_folders import CONFIG, LAYERS, VOCABULARY, WIDTH, Maker, tokenizer_json

from simmerge_core.checkpoints import (
    check_compatible,
    fingerprint,
    layer_and_module,
    manifest,
    open_checkpoint,
    resolve,
)
from simmerge_core.errors import CheckpointError
from simmerge_core.tables import CHECKPOINTS

EMBEDDING = "model.embed_tokens.weight"


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("model.embed_tokens.weight", (-1, "embedding")),
        ("lm_head.weight", (-1, "head")),
        ("model.norm.weight", (-1, "norm")),
        ("model.layers.0.self_attn.q_proj.weight", (0, "attention")),
        ("model.layers.11.self_attn.q_norm.weight", (11, "norm")),
        ("model.layers.3.mlp.down_proj.bias", (3, "mlp")),
        ("model.layers.3.post_attention_layernorm.weight", (3, "norm")),
        ("model.layers.5.block_sparse_moe.experts.7.w1.weight", (5, "mlp")),
        ("transformer.h.2.attn.c_attn.weight", (2, "attention")),
        ("transformer.h.2.mlp.c_fc.weight", (2, "mlp")),
        ("transformer.h.2.ln_1.weight", (2, "norm")),
        ("transformer.ln_f.bias", (-1, "norm")),
        ("transformer.wte.weight", (-1, "embedding")),
        ("transformer.wpe.weight", (-1, "embedding")),
        ("gpt_neox.layers.4.attention.query_key_value.weight", (4, "attention")),
        ("gpt_neox.layers.4.mlp.dense_h_to_4h.weight", (4, "mlp")),
        ("gpt_neox.embed_in.weight", (-1, "embedding")),
        ("embed_out.weight", (-1, "head")),
        ("model.layers.1.anything.weight", (1, "mlp")),
    ],
)
def test_layer_and_module(name: str, expected: tuple[int, str]) -> None:
    assert layer_and_module(name) == expected


def test_a_fingerprint_is_content_not_form(make: Maker) -> None:
    first = fingerprint(open_checkpoint(make("a", seed=1)))
    assert len(first) == 64
    assert first == fingerprint(open_checkpoint(make("again", seed=1)))
    assert first == fingerprint(open_checkpoint(make("sharded", seed=1, shards=3)))
    assert first == fingerprint(open_checkpoint(make("saved", seed=1, transformers_version="9", _name_or_path="x")))


def test_a_fingerprint_changes_with_the_content(make: Maker) -> None:
    def one_bit(weights: dict[str, torch.Tensor]) -> None:
        weights["model.norm.weight"][0] = torch.nextafter(weights["model.norm.weight"][0], torch.tensor(9.0))

    def renamed(weights: dict[str, torch.Tensor]) -> None:
        weights["model.norm.bias"] = weights.pop("model.norm.weight")

    def reshaped(weights: dict[str, torch.Tensor]) -> None:
        weights[EMBEDDING] = weights[EMBEDDING].reshape(WIDTH, VOCABULARY)

    prints = [
        fingerprint(open_checkpoint(path))
        for path in (
            make("a", seed=1),
            make("b", seed=2),
            make("c", seed=1, change=one_bit),
            make("d", seed=1, change=renamed),
            make("e", seed=1, change=reshaped),
            make("f", seed=1, dtype=torch.bfloat16),
            make("g", seed=1, rms_norm_eps=1e-5),
        )
    ]
    assert len(set(prints)) == len(prints)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"architectures": ["MistralForCausalLM"]}, "different architectures"),
        ({"model_type": "mistral"}, "different architectures"),
        ({"num_attention_heads": 4}, "num_attention_heads 2 and 4"),
        ({"tied": True}, "output head: 'b' ties it"),
        (
            {"change": lambda w: w.update({n: torch.zeros(30, WIDTH) for n in (EMBEDDING, "lm_head.weight")})},
            "different vocabularies \\(24 and 30 embedding rows\\)",
        ),
        ({"change": lambda w: w.pop("model.norm.weight")}, "'model.norm.weight' is missing in 'b'"),
        (
            {"change": lambda w: w.update({"model.extra.weight": torch.zeros(2)})},
            "'model.extra.weight' is missing in 'a'",
        ),
        (
            {"change": lambda w: w.update({"model.norm.weight": torch.zeros(9)})},
            r"'model.norm.weight' has shapes \[8\] and \[9\]",
        ),
        (
            {"change": lambda w: w.update({"model.norm.weight": torch.zeros(8, dtype=torch.int64)})},
            "has dtypes F32 and I64",
        ),
    ],
)
def test_what_cannot_be_merged_is_refused_with_both_names(make: Maker, options: dict[str, Any], message: str) -> None:
    folders = [open_checkpoint(make("a")), open_checkpoint(make("b", **options))]
    with pytest.raises(CheckpointError, match=rf"Checkpoints 'a' and 'b'.*{message}"):
        check_compatible(folders)


def test_other_tokens_in_the_same_rows_are_refused(make: Maker) -> None:
    a, b = make("a"), make("b")
    check_compatible([open_checkpoint(a), open_checkpoint(b)])
    other = tokenizer_json()
    other["model"]["vocab"] = {t: VOCABULARY - 1 - i for t, i in other["model"]["vocab"].items()}  # type: ignore[index]
    (b / "tokenizer.json").write_text(json.dumps(other))
    with pytest.raises(CheckpointError, match=r"'a' and 'b' have tokenizers with different vocabularies"):
        check_compatible([open_checkpoint(a), open_checkpoint(b)])
    (b / "tokenizer.json").write_text("{}")
    with pytest.raises(CheckpointError, match=r"tokenizer.json is damaged"):
        check_compatible([open_checkpoint(a), open_checkpoint(b)])


def test_dtypes_may_differ_between_checkpoints(make: Maker) -> None:
    check_compatible([open_checkpoint(make("a")), open_checkpoint(make("b", dtype=torch.bfloat16))])


def test_a_manifest_is_a_row_of_the_table(make: Maker) -> None:
    folder = open_checkpoint(make("a"))
    frame = manifest(folder, checkpoint="a-1", domain="math", base="base", fingerprint="f" * 64)
    row = CHECKPOINTS.validated(frame.drop("checkpoint"), where="test").row(0, named=True)
    assert (row["layers"], row["width"], row["vocabulary"]) == (LAYERS, WIDTH, VOCABULARY)
    assert row["architecture"] == CONFIG["architectures"][0]  # type: ignore[index]
    assert row["tensors"] == len(folder.tensors)


REVISION = "0123456789abcdef0123456789abcdef01234567"


def entry(**fields: Any) -> SimpleNamespace:
    return SimpleNamespace(**({"id": "a", "path": None, "hub": None, "revision": None} | fields))


def test_a_local_entry_is_its_folder(tmp_path: Path) -> None:
    assert resolve(entry(path=tmp_path)) == tmp_path


@pytest.mark.parametrize("allow", [False, True])
def test_a_hub_entry_is_a_pinned_snapshot_without_pickles_or_code(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, allow: bool
) -> None:
    seen: dict[str, Any] = {}

    def snapshot_download(**options: Any) -> str:
        seen.update(options)
        return str(tmp_path)

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)
    assert resolve(entry(hub="org/model", revision=REVISION), allow_hub=allow) == tmp_path
    assert (seen["repo_id"], seen["revision"], seen["local_files_only"]) == ("org/model", REVISION, not allow)
    from huggingface_hub.utils import filter_repo_objects

    files = [
        "config.json", "model.safetensors", "model-00001-of-00002.safetensors", "model.safetensors.index.json",
        "tokenizer.json", "tokenizer.model", "vocab.json", "merges.txt", "pytorch_model.bin", "modeling_x.py",
        "optimizer.pt", "README.md",
    ]  # fmt: skip
    kept = set(filter_repo_objects(files, allow_patterns=seen["allow_patterns"]))
    assert kept == set(files) - {"pytorch_model.bin", "modeling_x.py", "optimizer.pt", "README.md"}


@pytest.mark.parametrize("revision", [None, "main", "v1.0", REVISION[:12], REVISION.upper()])
def test_a_revision_that_can_move_is_refused(revision: str | None) -> None:
    with pytest.raises(CheckpointError, match=r"'a': revision .* is not a commit of 40 hex digits"):
        resolve(entry(hub="org/model", revision=revision), allow_hub=True)


def test_a_snapshot_that_is_not_cached_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The real function against an empty cache: nothing is downloaded unless it is allowed."""
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(
        CheckpointError, match=rf"'a': org/model at {REVISION[:12]} is not in the local cache: allow downloads"
    ):
        resolve(entry(hub="org/model", revision=REVISION))


def test_an_unreachable_hub_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(**options: Any) -> str:
        raise OSError("no route\nto host")

    monkeypatch.setattr("huggingface_hub.snapshot_download", fail)
    with pytest.raises(CheckpointError, match=r"cannot be downloaded: no route$"):
        resolve(entry(hub="org/model", revision=REVISION), allow_hub=True)
    with pytest.raises(CheckpointError, match=r"neither a path nor a hub repository"):
        resolve(entry())
