"""Plans executed from folders: the same bits as in memory, whole or not at all, refused before a byte is written."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from llama_folders import Maker, llama_weights, tokenizer_json
from safetensors.torch import load_file

import simmerge_core.operators.operator
from simmerge_core.catalog.model import Benchmark, Catalog, CheckpointEntry, Task
from simmerge_core.checkpoints import fingerprint, load_model, open_checkpoint
from simmerge_core.errors import CatalogError, CheckpointError, MergeError, OperatorError, SimMergeError
from simmerge_core.merging import (
    execute,
    execute_plan,
    execute_plan_from_catalog,
    load_weights,
    merge_tensors,
    needs_base,
    streaming,
)
from simmerge_core.operators import OPERATORS
from simmerge_core.plans import plan_of, recipe_key

TWO = ("a", "b")
CHAINS: tuple[tuple[tuple[str, ...], tuple[str, ...]], ...] = (
    (("a",), ()),
    *((TWO, (name,)) for name in OPERATORS),
    (TWO, ("slerp@0.3",)),
    (("a", "b", "c"), ("linear@0.3", "ties@0.5,tau=0.5")),  # coordinate by coordinate: one pass
    (("a", "b", "c"), ("slerp@0.7", "ties_task_vector@0.4,density=0.2")),
    (("a", "b", "c", "d"), ("norm_balanced", "slerp", "dare@0.5,density=0.9")),
    (("a", "b", "a"), ("linear", "slerp")),
)


def folders(make: Maker, **options: Any) -> dict[str, Path]:
    return {name: make(name, seed=seed, **options) for seed, name in enumerate("abcd", start=1)}


def visible(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir())


@pytest.mark.parametrize("block", [13, 1 << 17])
@pytest.mark.parametrize(("checkpoints", "actions"), CHAINS)
def test_streaming_gives_the_bits_of_memory(
    make: Maker,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    checkpoints: tuple[str, ...],
    actions: tuple[str, ...],
    block: int,
) -> None:
    """In float32, for every operator and chains of them, with one block per tensor and with many."""
    monkeypatch.setattr(simmerge_core.operators.operator, "BLOCK", block)
    monkeypatch.setattr(streaming, "BLOCK", block)
    monkeypatch.setattr("simmerge_core.merging.execute.KEPT_BYTES", 600)  # some tensors are kept, some are read again
    paths, base = folders(make), make("base")
    plan = plan_of(checkpoints, actions)
    merged = execute_plan(plan, paths, tmp_path / "out", base=base)
    expected = merge_tensors(plan, {c: load_weights(paths[c]) for c in checkpoints}, base=load_weights(base))
    written = load_file(tmp_path / "out" / "model.safetensors")
    assert written.keys() == expected.keys()
    for name, values in expected.items():
        assert torch.equal(written[name], values), name
    assert merged.fingerprint == fingerprint(open_checkpoint(tmp_path / "out"))
    assert merged.parameters == sum(t.numel() for t in written.values())


def test_steps_are_the_operators_in_order(make: Maker) -> None:
    """M₁ = a; M₂ = o₁(M₁, b); M₃ = o₂(M₂, c), tensor by tensor."""
    weights = {c: load_weights(p) for c, p in folders(make).items()}
    plan = plan_of(("a", "b", "c"), ("slerp@0.3", "ties@0.7"))
    for name, values in merge_tensors(plan, weights).items():
        second = OPERATORS["slerp"](weights["a"][name], weights["b"][name], alpha=0.3)
        assert torch.equal(values, OPERATORS["ties"](second, weights["c"][name], alpha=0.7))


def test_a_merge_loads_and_computes_with_the_mean_weights(make: Maker, tmp_path: Path) -> None:
    paths = folders(make)
    execute_plan(plan_of(TWO, ("linear@0.25",)), paths, tmp_path / "out")
    model, tokenizer = load_model(tmp_path / "out")
    weights = {n: 0.75 * x + 0.25 * llama_weights(2)[n] for n, x in llama_weights(1).items()}
    reference, _ = load_model(paths["a"])
    reference.load_state_dict(weights)
    ids = torch.tensor([tokenizer("abcd")["input_ids"]])
    with torch.no_grad():
        torch.testing.assert_close(model(ids).logits, reference(ids).logits, rtol=1e-4, atol=1e-4)
    assert (tmp_path / "out" / "generation_config.json").is_file()


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("stored", [torch.float32, torch.bfloat16, torch.float16])
def test_results_are_rounded_to_nearest(make: Maker, tmp_path: Path, stored: torch.dtype, dtype: str) -> None:
    paths = folders(make, dtype=stored)
    merged = execute_plan(plan_of(TWO, ("linear@0.3",)), paths, tmp_path / "out", dtype=dtype)
    assert merged.dtype == dtype
    a, b = (load_file(paths[c] / "model.safetensors") for c in TWO)
    for name, values in load_file(tmp_path / "out" / "model.safetensors").items():
        exact = (1 - 0.3) * a[name].double() + 0.3 * b[name].double()
        assert values.dtype == getattr(torch, dtype)
        bits = {"float32": 24, "bfloat16": 8, "float16": 11}[dtype]
        half_step = torch.ldexp(torch.ones_like(exact), torch.frexp(exact).exponent - bits - 1)
        arithmetic = 2.0**-23 * (a[name].double().abs() + b[name].double().abs())  # float32, before the rounding
        floor = 2.0**-25 if dtype == "float16" else 0.0  # its subnormals
        assert ((values.double() - exact).abs() <= half_step + arithmetic + floor).all()
    assert json.loads((tmp_path / "out" / "config.json").read_text())["dtype"] == dtype
    assert str(load_model(tmp_path / "out")[0].dtype) == f"torch.{dtype}"


def test_the_stored_dtype_is_kept_tensor_by_tensor(make: Maker, tmp_path: Path) -> None:
    def mixed(weights: dict[str, torch.Tensor]) -> None:
        weights["model.norm.weight"] = weights["model.norm.weight"].float()

    paths = folders(make, dtype=torch.bfloat16, change=mixed)
    merged = execute_plan(plan_of(TWO, ("linear",)), paths, tmp_path / "out")
    assert merged.dtype == "bfloat16+float32"
    written = load_file(tmp_path / "out" / "model.safetensors")
    assert written["model.norm.weight"].dtype == torch.float32
    assert written["lm_head.weight"].dtype == torch.bfloat16


def test_checkpoints_of_different_dtypes_need_an_output_dtype(make: Maker, tmp_path: Path) -> None:
    paths = {"a": make("a"), "b": make("b", dtype=torch.bfloat16)}
    with pytest.raises(MergeError, match=r"'a' and 'b' store tensor .* as float32 and bfloat16: name the output dtype"):
        execute_plan(plan_of(TWO, ("linear",)), paths, tmp_path / "out")
    execute_plan(plan_of(TWO, ("linear",)), paths, tmp_path / "out", dtype="bfloat16")
    with pytest.raises(MergeError, match=r"Output dtype 'int8' is not supported"):
        execute_plan(plan_of(TWO, ("linear",)), paths, tmp_path / "out", dtype="int8")


@pytest.mark.parametrize("shards", [1, 3])
def test_sharding_of_input_and_output_changes_nothing(make: Maker, tmp_path: Path, shards: int) -> None:
    paths = folders(make, shards=shards)
    plan = plan_of(("a", "b", "c"), ("slerp", "linear"))
    one = execute_plan(plan, paths, tmp_path / "one")
    many = execute_plan(plan, paths, tmp_path / "many", shard_bytes=1500)
    assert (one.fingerprint, one.recipe_key) == (many.fingerprint, many.recipe_key)
    index = json.loads((tmp_path / "many" / "model.safetensors.index.json").read_text())
    assert index["metadata"]["total_size"] == many.bytes
    assert len(set(index["weight_map"].values())) == len(list((tmp_path / "many").glob("*.safetensors"))) > 3
    expected = load_file(tmp_path / "one" / "model.safetensors")
    state = load_model(tmp_path / "many")[0].state_dict()
    assert all(torch.equal(state[n], t) for n, t in expected.items())


def test_tied_heads_stay_tied(make: Maker, tmp_path: Path) -> None:
    def store_head(weights: dict[str, torch.Tensor]) -> None:
        weights["lm_head.weight"] = weights["model.embed_tokens.weight"].clone()

    paths = {"a": make("a", seed=1, tied=True), "b": make("b", seed=2, tied=True, change=store_head)}
    plan = plan_of(TWO, ("slerp",))
    execute_plan(plan, paths, tmp_path / "out")
    assert "lm_head.weight" not in load_file(tmp_path / "out" / "model.safetensors")
    model, _ = load_model(tmp_path / "out")
    assert model.get_output_embeddings().weight is model.get_input_embeddings().weight
    merged = merge_tensors(plan, {c: load_weights(p) for c, p in paths.items()})
    assert merged["lm_head.weight"] is merged["model.embed_tokens.weight"]
    state = model.state_dict()
    assert state.keys() == merged.keys()
    assert all(torch.equal(state[n], t) for n, t in merged.items())


def test_what_is_not_floating_point_is_copied_or_refused(make: Maker, tmp_path: Path) -> None:
    def table(value: int) -> Callable[[dict[str, torch.Tensor]], object]:
        return lambda w: w.update({"model.table": torch.full((5,), value)})

    same = {"a": make("a", change=table(3)), "b": make("b", change=table(3))}
    execute_plan(plan_of(TWO, ("linear",)), same, tmp_path / "out", dtype="bfloat16")
    assert load_file(tmp_path / "out" / "model.safetensors")["model.table"].tolist() == [3] * 5
    other = {"a": same["a"], "b": make("b2", change=table(4))}
    with pytest.raises(MergeError, match=r"'a' and 'b' differ in tensor 'model.table'"):
        execute_plan(plan_of(TWO, ("linear",)), other, tmp_path / "none")


def test_the_documents_say_what_was_merged(make: Maker, tmp_path: Path) -> None:
    paths, base = folders(make), make("base")
    plan = plan_of(("a", "b", "c"), ("ties@0.5,tau=0.01", "task_arithmetic@0.25"))
    merged = execute_plan(plan, paths, tmp_path / "out", base=base, provenance={"sources": {"a": "org/a: x"}, "by": 1})
    card = (tmp_path / "out" / "README.md").read_text()
    front = yaml.safe_load(card.split("---")[1])
    assert front["base_model"] == ["org/a: x", "b", "c"]
    assert "merge" in front["tags"]
    assert str(plan) in card
    provenance = json.loads((tmp_path / "out" / "simmerge.json").read_text())
    prints = {c: fingerprint(open_checkpoint(paths[c])) for c in plan.checkpoints}
    of_base = fingerprint(open_checkpoint(base))
    key = recipe_key(plan, fingerprints=prints, base_fingerprint=of_base, dtype="float32")
    assert provenance["recipe_key"] == merged.recipe_key == key
    assert provenance["recipe"]["checkpoints"] == list(prints.values())
    assert provenance["given"]["by"] == 1
    text = (tmp_path / "out" / "mergekit_config.yml").read_text()
    assert "mergekit has no equivalent of ties" in text
    second = list(yaml.safe_load_all(text))[-1]
    assert second["merge_method"] == "task_arithmetic"
    assert second["base_model"] == str(base)
    assert [m["parameters"]["weight"] for m in second["models"]] == pytest.approx([0.45, 0.15])


@pytest.mark.parametrize("name", list(OPERATORS))
def test_every_mergekit_config_is_yaml(make: Maker, tmp_path: Path, name: str) -> None:
    execute_plan(plan_of(TWO, (name,)), folders(make), tmp_path / "out", base=make("base"))
    text = (tmp_path / "out" / "mergekit_config.yml").read_text()
    body = yaml.safe_load(text)
    assert (body is None) == (OPERATORS[name].mergekit is None)
    if body is not None:
        assert body["merge_method"] == OPERATORS[name].mergekit
        assert body["dtype"] == "float32"


def test_known_fingerprints_are_taken_as_given(make: Maker, tmp_path: Path) -> None:
    given = {"a": "1" * 64, "b": "2" * 64}
    merged = execute_plan(plan_of(TWO, ("linear",)), folders(make), tmp_path / "out", fingerprints=given)
    assert merged.fingerprints == given


def test_the_tokenizer_comes_from_where_it_is_said(make: Maker, tmp_path: Path) -> None:
    plan = plan_of(TWO, ("linear",))
    paths = {"a": make("a", tokenizer=False), "b": make("b")}
    chosen = make("chosen")
    (chosen / "generation_config.json").write_text('{"max_new_tokens": 99}')
    execute_plan(plan, paths, tmp_path / "out", tokenizer_from=chosen)
    assert "99" in (tmp_path / "out" / "generation_config.json").read_text()
    execute_plan(plan, paths, tmp_path / "out")  # the first one that has a tokenizer
    assert (tmp_path / "out" / "tokenizer.json").read_bytes() == (paths["b"] / "tokenizer.json").read_bytes()
    with pytest.raises(MergeError, match=r"has no tokenizer to copy"):
        execute_plan(plan, paths, tmp_path / "out", tokenizer_from=paths["a"])
    (chosen / "tokenizer.json").write_text(json.dumps(tokenizer_json(26)))
    with pytest.raises(MergeError, match=r"26 tokens, but checkpoint 'a' has 24 embedding rows"):
        execute_plan(plan, paths, tmp_path / "out", tokenizer_from=chosen)


def poisoned(value: float) -> Callable[[dict[str, torch.Tensor]], object]:
    return lambda w: w["model.layers.1.mlp.up_proj.weight"].fill_(value)


REFUSALS: dict[str, tuple[Callable[[Maker, Path], dict[str, Any]], type[SimMergeError], str]] = {
    "missing folder": (lambda make, tmp: {"b": tmp / "gone"}, CheckpointError, "'b': folder .* does not exist"),
    "NaN": (
        lambda make, tmp: {"b": make("n", change=poisoned(float("nan")))},
        CheckpointError,
        "'b': tensor 'model.layers.1.mlp.up_proj.weight' holds NaN",
    ),
    "Inf": (
        lambda make, tmp: {"b": make("n", change=poisoned(float("inf")))},
        CheckpointError,
        "'b': tensor 'model.layers.1.mlp.up_proj.weight' holds NaN",
    ),
    "NaN in the base": (
        lambda make, tmp: {"base": make("n", change=poisoned(float("nan"))), "operator": "task_arithmetic"},
        CheckpointError,
        r"'n \(base\)': tensor .* holds NaN",
    ),
    "other shapes": (
        lambda make, tmp: {"b": make("s", change=lambda w: w.update({"model.norm.weight": torch.zeros(9)}))},
        CheckpointError,
        "'a' and 'b': tensor 'model.norm.weight' has shapes",
    ),
    "other architecture": (
        lambda make, tmp: {"b": make("m", model_type="mistral")},
        CheckpointError,
        "different architectures",
    ),
    "no base": (
        lambda make, tmp: {"operator": "ties_task_vector"},
        MergeError,
        "works on task vectors .* give the base",
    ),
    "unknown operator": (lambda make, tmp: {"operator": "magic"}, OperatorError, "'magic' is unknown"),
    "no folder given": (lambda make, tmp: {"b": None}, MergeError, "names checkpoint 'b', but no folder was given"),
    "output is an input": (lambda make, tmp: {"out": tmp / "a"}, MergeError, "overlaps the input"),
    "output in an input": (lambda make, tmp: {"out": tmp / "a" / "out"}, MergeError, "overlaps the input"),
    "output around the inputs": (lambda make, tmp: {"out": tmp}, MergeError, "overlaps the input"),
    "float16 overflow": (
        lambda make, tmp: {
            "a": make("h", change=poisoned(9e4)),
            "b": make("h2", change=poisoned(9e4)),
            "dtype": "float16",
        },
        MergeError,
        "overflows float16 in tensor 'model.layers.1.mlp.up_proj.weight'",
    ),
}


@pytest.mark.parametrize("case", REFUSALS)
def test_what_cannot_be_merged_leaves_earlier_results_untouched(make: Maker, tmp_path: Path, case: str) -> None:
    prepare, error, message = REFUSALS[case]
    good = folders(make)
    out = tmp_path / "results" / "out"
    execute_plan(plan_of(TWO, ("linear",)), good, out)
    before = {p.name: p.read_bytes() for p in out.iterdir()}
    inputs = {n: sorted(p.name for p in good[n].iterdir()) for n in TWO}
    changes = prepare(make, tmp_path)
    chosen = {n: changes.get(n, good[n]) for n in TWO if changes.get(n, good[n]) is not None}
    plan = plan_of(TWO, (changes.get("operator", "slerp"),))
    with pytest.raises(error, match=message) as raised:
        execute_plan(plan, chosen, changes.get("out", out), base=changes.get("base"), dtype=changes.get("dtype"))
    assert "\n" not in str(raised.value)
    assert {p.name: p.read_bytes() for p in out.iterdir()} == before
    assert visible(out.parent) == ["out"]
    assert {n: sorted(p.name for p in good[n].iterdir()) for n in TWO} == inputs


def test_refusals_before_any_byte_write_nothing_at_all(make: Maker, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError):
        execute_plan(
            plan_of(TWO, ("linear",)),
            {"a": make("a"), "b": make("b", num_attention_heads=4)},
            tmp_path / "deep" / "out",
        )
    assert not (tmp_path / "deep").exists()


def test_a_folder_that_is_no_merge_is_not_replaced(make: Maker, tmp_path: Path) -> None:
    plan, paths = plan_of(TWO, ("linear",)), folders(make)
    mine = tmp_path / "mine"
    mine.mkdir()
    execute_plan(plan, paths, mine)  # an empty folder is fine
    execute_plan(plan, paths, mine)  # and so is an earlier merge
    other = tmp_path / "other"
    other.mkdir()
    (other / "thesis.txt").write_text("years")
    with pytest.raises(MergeError, match=r"exists and was not written by a merge"):
        execute_plan(plan, paths, other)
    with pytest.raises(MergeError, match=r"exists and is not a folder"):
        execute_plan(plan, paths, other / "thesis.txt")
    assert (other / "thesis.txt").read_text() == "years"


def test_a_full_disk_is_seen_before_and_while_writing(
    make: Maker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan, paths = plan_of(TWO, ("linear",)), folders(make)
    monkeypatch.setattr(execute.shutil, "disk_usage", lambda place: os.times() and type("U", (), {"free": 1000})())
    with pytest.raises(MergeError, match=r"0.00 GB are free: make room"):
        execute_plan(plan, paths, tmp_path / "results" / "out")
    assert not (tmp_path / "results").exists()
    monkeypatch.undo()

    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    real = os.pwrite
    monkeypatch.setattr(
        "simmerge_core.merging.shards.os.pwrite", lambda handle, data, at: real(handle, data, at) if at == 0 else full()
    )
    with pytest.raises(
        MergeError, match=r"could not be written to .*: No space left on device; nothing was left there"
    ):
        execute_plan(plan, paths, tmp_path / "results" / "out")
    assert visible(tmp_path / "results") == []


KILLED = """
import os, signal, sys
from pathlib import Path
from simmerge_core.merging import execute_plan
from simmerge_core.plans import plan_of

def die(message, fraction):
    if fraction > 0.4:
        os.kill(os.getpid(), signal.SIGKILL)

a, b, out = map(Path, sys.argv[1:])
execute_plan(plan_of(["a", "b"], ["linear"]), {"a": a, "b": b}, out, progress=die)
"""


def test_a_killed_merge_leaves_nothing_visible(make: Maker, tmp_path: Path) -> None:
    paths = folders(make)
    out = tmp_path / "results" / "out"
    command = [sys.executable, "-c", KILLED, str(paths["a"]), str(paths["b"]), str(out)]
    root = Path(__file__).parents[2]
    assert subprocess.run(command, cwd=root, check=False).returncode == -signal.SIGKILL
    assert [n for n in visible(out.parent) if not n.startswith(".")] == []
    execute_plan(plan_of(TWO, ("linear",)), paths, out)
    load_model(out)


def test_a_catalog_names_folders_and_base(make: Maker, tmp_path: Path) -> None:
    paths = folders(make)
    catalog = Catalog(
        version=1,
        base=CheckpointEntry(id="base", path=make("base")),
        checkpoints=tuple(CheckpointEntry(id=c, path=p, domain="math") for c, p in paths.items()),
        tasks=(Task(id="math", probes=tmp_path / "p.jsonl", benchmarks=(Benchmark(name="x", metrics=("acc,none",)),)),),
    )
    plan = plan_of(("c", "a"), ("task_arithmetic",))
    merged = execute_plan_from_catalog(plan, catalog, tmp_path / "out")
    expected = execute_plan(plan, paths, tmp_path / "same", base=catalog.base.path)
    assert (merged.recipe_key, merged.fingerprint) == (expected.recipe_key, expected.fingerprint)
    with pytest.raises(CatalogError, match="'z'"):
        execute_plan_from_catalog(plan_of(("a", "z"), ("linear",)), catalog, tmp_path / "none")


def test_progress_rises_to_one(make: Maker, tmp_path: Path) -> None:
    seen: list[float] = []
    execute_plan(
        plan_of(TWO, ("linear",)), folders(make), tmp_path / "out", progress=lambda _, fraction: seen.append(fraction)
    )
    assert seen == sorted(seen)
    assert (seen[0], seen[-1]) == (0.0, 1.0)


def test_merges_in_memory_refuse_what_does_not_fit(make: Maker) -> None:
    weights = {c: load_weights(p) for c, p in folders(make).items()}
    with pytest.raises(MergeError, match=r"names checkpoint 'z'"):
        merge_tensors(plan_of(("a", "z"), ("linear",)), weights)
    with pytest.raises(MergeError, match=r"give the base"):
        merge_tensors(plan_of(TWO, ("dare",)), weights)
    weights["b"].pop("model.norm.weight")
    with pytest.raises(MergeError, match=r"'a' and 'b' do not have the same tensors: 'model.norm.weight'"):
        merge_tensors(plan_of(TWO, ("linear",)), weights)
    weights["b"]["model.norm.weight"] = torch.zeros(9)
    with pytest.raises(MergeError, match=r"'model.norm.weight' has different shapes"):
        merge_tensors(plan_of(TWO, ("linear",)), weights)
    with pytest.raises(CheckpointError, match=r"holds NaN"):
        load_weights(make("n", change=poisoned(float("nan"))))


def test_only_task_vector_operators_need_the_base() -> None:
    assert not needs_base(plan_of(("a", "b", "c"), ("linear", "ties")))
    assert needs_base(plan_of(("a", "b", "c"), ("linear", "norm_balanced")))


def test_the_command_line_can_ask_without_torch() -> None:
    """Actions, operators and steps are looked up before any heavy import."""
    code = (
        "import sys; from simmerge_core.operators import check_action, parse_action;"
        "from simmerge_core.merging import needs_base;"
        "from simmerge_core.checkpoints import open_checkpoint; from simmerge_core.plans import plan_of;"
        "check_action(parse_action('ties@0.5,tau=0.1')); needs_base(plan_of(['a', 'b'], ['dare']));"
        "assert not {'torch', 'transformers', 'polars', 'lm_eval', 'dagster'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[2], check=True)
