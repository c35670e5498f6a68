"""Builds: loadable, equal to the byte at any number of workers, resumable, clear when refused."""

from __future__ import annotations

import dataclasses
import fcntl
import json
from pathlib import Path
from random import Random

import pytest
import torch
import yaml
from transformers import AutoModelForCausalLM, AutoTokenizer

from simmerge_core.demo import PRESETS, DemoPreset, build, describe, jobs
from simmerge_core.demo.domains import DOMAINS
from simmerge_core.demo.recipes import base_recipe, expert_recipes
from simmerge_core.demo.tokenizer import END_ID, END_TEXT, encode
from simmerge_core.errors import CatalogError

MINUTE = dataclasses.replace(
    PRESETS["tiny"],
    name="minute",
    domains=("math", "instruct"),
    experts_per_domain=1,
    base_steps=12,
    batch=8,
    base_weights=(1.0, 1.0),
    expert_steps=(4, 6),
    probes=3,
    items=4,
    merge_sizes=(),
)


@pytest.fixture(autouse=True)
def _minute_preset(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(PRESETS, MINUTE.name, MINUTE)


def _contents(folder: Path) -> dict[str, bytes]:
    """Bytes of every file, except lm-eval definitions (they name absolute paths) and hidden files."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.parent.name != "lm_eval" and not path.name.startswith(".")
    }


def _times(folder: Path) -> dict[str, int]:
    return {str(p.relative_to(folder)): p.stat().st_mtime_ns for p in folder.rglob("*") if p.is_file()}


@pytest.fixture(scope="module")
def minute(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("minute")
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(PRESETS, MINUTE.name, MINUTE)
        build(folder, preset=MINUTE.name, workers=1)
    return folder


def test_worker_processes_write_the_same_bytes(minute: Path, tmp_path: Path) -> None:
    seen: list[tuple[str, float]] = []
    build(tmp_path, preset=MINUTE.name, workers=2, progress=lambda stage, done: seen.append((stage, done)))
    assert _contents(tmp_path) == _contents(minute)
    assert [stage for stage, done in seen if done == 1.0][-3:] == ["experts", "base", "experts"]
    for stage in ("base", "experts"):
        fractions = [done for name, done in seen if name == stage][:-1]
        assert fractions == sorted(fractions)
        assert all(0.0 < done <= 1.0 for done in fractions)


class _KilledError(Exception):
    pass


def test_a_killed_build_goes_on(minute: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs, "SAVE_EVERY", 10)

    def kill_at(stage: str, fraction: float) -> None:
        if (stage, fraction) == kill_point:
            raise _KilledError

    kill_point = ("base", 1.0)  # step 12 of the base is reported, its folder not yet written
    with pytest.raises(_KilledError):
        build(tmp_path, preset=MINUTE.name, workers=1, progress=kill_at)
    assert not (tmp_path / "checkpoints" / "base").exists()
    (tmp_path / "checkpoints" / ".base.0.tmp").mkdir()

    reported: list[tuple[str, float]] = []
    kill_point = ("experts", 0.4)  # the first expert's last report

    def record_and_kill(stage: str, fraction: float) -> None:
        reported.append((stage, fraction))
        kill_at(stage, round(fraction, 1))

    with pytest.raises(_KilledError):
        build(tmp_path, preset=MINUTE.name, workers=1, progress=record_and_kill)
    assert [done for stage, done in reported if stage == "base"] == [1.0]  # from saved step 10: only step 12 reported

    build(tmp_path, preset=MINUTE.name, workers=1)
    assert _contents(tmp_path) == _contents(minute)
    assert not [p for p in (tmp_path / "checkpoints").iterdir() if p.name.startswith(".")]


def test_a_finished_build_touches_nothing(minute: Path) -> None:
    before = _times(minute)
    build(minute, preset=MINUTE.name, workers=2)
    after = _times(minute)
    before.pop(".build.lock")
    after.pop(".build.lock")
    assert after == before


def test_a_changed_recipe_redoes_what_depends_on_it(
    minute: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    build(tmp_path, preset=MINUTE.name, workers=1)
    before = _times(tmp_path)
    monkeypatch.setitem(PRESETS, MINUTE.name, dataclasses.replace(MINUTE, expert_steps=(5, 5)))
    build(tmp_path, preset=MINUTE.name, workers=1)
    after = _times(tmp_path)
    changed = {name.split("/")[1] for name in after if name.startswith("checkpoints/") and before[name] != after[name]}
    assert changed == {"math-01", "instruct-01"}
    build(tmp_path, preset=MINUTE.name, seed=1, workers=1)
    assert all(_times(tmp_path)[n] != after[n] for n in after if n.endswith("model.safetensors"))


def test_full_extends_demo() -> None:
    demo, full = PRESETS["demo"], PRESETS["full"]
    assert base_recipe(demo, seed=3) == base_recipe(full, seed=3)
    of_demo = {recipe.checkpoint: recipe for recipe in expert_recipes(demo, seed=3)}
    of_full = {recipe.checkpoint: recipe for recipe in expert_recipes(full, seed=3)}
    assert (len(of_demo), len(of_full)) == (25, 30)
    assert of_demo.items() <= of_full.items()


@pytest.mark.parametrize("name", ["demo", "full"])
def test_recipes_cover_the_designed_grid(name: str) -> None:
    preset: DemoPreset = PRESETS[name]
    for domain in preset.domains:
        recipes = [recipe for recipe in expert_recipes(preset, seed=0) if recipe.domain == domain]
        assert {recipe.rate for recipe in recipes} == set(preset.expert_rates)
        assert {recipe.decay for recipe in recipes} >= {0.0, 0.5}
        assert max(recipe.decay for recipe in recipes) >= 1.0
        assert all(recipe.rate * recipe.decay <= preset.strongest_shrinkage * (1 + 1e-12) for recipe in recipes)
        assert {recipe.steps for recipe in recipes} == set(preset.expert_steps)
        assert 1 <= sum(recipe.frozen for recipe in recipes) <= 2


def test_two_builders_do_not_meet(tmp_path: Path) -> None:
    with (tmp_path / ".build.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(CatalogError, match="Another build"):
            build(tmp_path, preset=MINUTE.name, workers=1)


def test_wrong_arguments_are_refused_before_work(tmp_path: Path) -> None:
    with pytest.raises(CatalogError, match="'huge' does not exist: choose one of tiny, demo, full"):
        build(tmp_path / "new", preset="huge")
    with pytest.raises(CatalogError, match="0 workers"):
        build(tmp_path / "new", preset=MINUTE.name, workers=0)
    assert not (tmp_path / "new").exists()


def test_frozen_experts_keep_embedding_and_head(tiny_catalog: Path) -> None:
    folder = tiny_catalog.parent / "checkpoints"
    load = lambda name: AutoModelForCausalLM.from_pretrained(folder / name, local_files_only=True).state_dict()  # noqa: E731
    base = load("base")
    for path in folder.glob("*-*/recipe.json"):
        frozen = json.loads(path.read_text())["recipe"]["frozen"]
        expert = load(path.parent.name)
        for name in ("model.embed_tokens.weight", "lm_head.weight"):
            assert torch.equal(base[name], expert[name]) == frozen
        assert not torch.equal(base["model.norm.weight"], expert["model.norm.weight"])


def test_checkpoints_load_as_they_are(tiny_catalog: Path) -> None:
    catalog = yaml.safe_load(tiny_catalog.read_text())
    assert catalog["version"] == 1
    for entry in [catalog["base"], *catalog["checkpoints"]]:
        folder = tiny_catalog.parent / entry["path"]
        model, info = AutoModelForCausalLM.from_pretrained(
            folder, local_files_only=True, use_safetensors=True, output_loading_info=True
        )
        assert not any(info[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
        assert model.config.model_type == "llama"
        assert not model.config.tie_word_embeddings
        assert all(bool(torch.isfinite(value).all()) for value in model.state_dict().values())


def test_the_tokenizer_never_adds_a_token(tiny_catalog: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tiny_catalog.parent / "checkpoints" / "base", local_files_only=True)
    rng = Random(0)
    for skills in DOMAINS.values():
        for generate in skills.values():
            text = "".join(generate(rng))
            for special in (True, False):
                ids = tokenizer(text + END_TEXT, add_special_tokens=special)["input_ids"]
                assert ids == [*encode(text), END_ID]
            assert tokenizer.decode(encode(text)) == text


def test_every_file_the_catalog_names_exists(tiny_catalog: Path) -> None:
    catalog, root = yaml.safe_load(tiny_catalog.read_text()), tiny_catalog.parent
    for task in catalog["tasks"]:
        probes = [json.loads(line) for line in (root / task["probes"]).read_text().splitlines()]
        assert [set(row) for row in probes] == [{"prompt"}] * PRESETS["tiny"].probes
        (benchmark,) = task["benchmarks"]
        folder = root / benchmark["include_path"]
        definition = yaml.safe_load((folder / f"{benchmark['name']}.yaml").read_text())
        files = definition["dataset_kwargs"]["data_files"]["test"]
        rows = [json.loads(line) for path in files for line in (folder / path).read_text().splitlines()]
        assert len(rows) == benchmark["documents"]
        assert all(row["answer"].endswith(END_TEXT) for row in rows)
        prompts = {row["prompt"] for row in rows} | {row["prompt"] for row in probes}
        assert len(prompts) == len(rows) + len(probes)


def test_experts_are_experts(tiny_catalog: Path) -> None:
    table = describe(tiny_catalog)
    assert table["checkpoint"][0] == "base"
    assert table["cosine_to_base"].is_between(0.5, 1.0).all()
    for domain in PRESETS["tiny"].domains:
        column = table[f"em_{domain}"]
        own = table["domain"] == domain
        others = (table["domain"] != domain) & (table["domain"] != "")
        assert float(column.filter(own).mean()) >= float(column.filter(others).mean()) + 0.1  # type: ignore[arg-type]
