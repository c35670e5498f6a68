"""Item files, lm-eval definitions and the catalog file."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml

from simmerge_core.demo.domains.generator import seeded
from simmerge_core.demo.items import item_set
from simmerge_core.demo.presets import DemoPreset
from simmerge_core.demo.tokenizer import END_TEXT
from simmerge_core.files import write_atomically

LM_EVAL_FOLDER = "tasks/lm_eval"


def _write_if_changed(path: Path, text: str) -> None:
    """Leave an equal file alone, so that a finished build touches nothing."""
    if path.is_file() and path.read_text(encoding="utf-8") == text:
        return
    with write_atomically(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def _lines(rows: Iterable[dict[str, str]]) -> str:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def _yaml(value: Any) -> str:
    text: str = yaml.safe_dump(value, sort_keys=False, allow_unicode=True, width=110)
    return text


def benchmark_name(domain: str) -> str:
    """Name of the lm-eval task of a domain."""
    return f"simmerge_demo_{domain}"


def write_tasks(out_dir: Path, preset: DemoPreset, *, seed: int) -> None:
    """Write tasks/<task>/{probe,A,B}.jsonl and tasks/lm_eval/<name>.yaml.

    The answer of an evaluation item ends with the end token's text: a model must also know where to stop.
    """
    for domain in preset.domains:
        folder = out_dir / "tasks" / domain

        def items(split: str, count: int, domain: str = domain) -> list[tuple[str, str]]:
            return item_set(domain, split, count, seeded(seed, domain, split), skills=preset.skills_of(domain))

        probes = items("probe", preset.probes)
        _write_if_changed(folder / "probe.jsonl", _lines({"prompt": prompt} for prompt, _ in probes))
        for name in ("A", "B"):
            rows = ({"prompt": prompt, "answer": answer + END_TEXT} for prompt, answer in items(name, preset.items))
            _write_if_changed(folder / f"{name}.jsonl", _lines(rows))
        definition = {
            "task": benchmark_name(domain),
            "dataset_path": "json",
            # From this file's folder, so that a copied or moved catalog scores its own items; lm-eval's own command
            # line takes such paths from the working folder: run it there.
            "dataset_kwargs": {"data_files": {"test": [f"../{domain}/{n}.jsonl" for n in ("A", "B")]}},
            "test_split": "test",
            "output_type": "loglikelihood",
            "doc_to_text": "prompt",
            "doc_to_target": "answer",
            "target_delimiter": "",
            "metric_list": [{"metric": "acc", "aggregation": "mean", "higher_is_better": True}],
            "metadata": {"version": 1.0},
        }
        _write_if_changed(out_dir / LM_EVAL_FOLDER / f"{benchmark_name(domain)}.yaml", _yaml(definition))


def write_catalog(out_dir: Path, preset: DemoPreset, checkpoints: Iterable[tuple[str, str]]) -> Path:
    """Write catalog.yaml for the given (id, domain) checkpoints; return its path."""
    items = preset.items
    catalog: dict[str, Any] = {
        "version": 1,
        "base": {"id": "base", "path": "checkpoints/base"},
        "checkpoints": [{"id": name, "path": f"checkpoints/{name}", "domain": domain} for name, domain in checkpoints],
        "tasks": [
            {
                "id": domain,
                "probes": f"tasks/{domain}/probe.jsonl",
                "benchmarks": [
                    {
                        "name": benchmark_name(domain),
                        "include_path": LM_EVAL_FOLDER,
                        "metrics": ["acc,none", "probability"],
                        "item_sets": {"A": f"0:{items}", "B": f"{items}:{2 * items}"},
                        "documents": 2 * items,
                    }
                ],
            }
            for domain in preset.domains
        ],
        "merge_requests": [
            {"id": f"{task}-{k}way", "task": task, "k": k, "checkpoints": "all", "actions": "paper"}
            for task, k in preset.merge_sizes
            if k <= len(preset.domains)  # a plan holds at most one checkpoint of each domain
        ]
        + [{"id": "online-3way", "task": preset.domains[0], "k": 3, "actions": "paper", "policy": "lints"}],
    }
    if preset.action_sets:
        catalog["action_sets"] = {name: list(actions) for name, actions in preset.action_sets}
    if preset.labels:
        catalog["labels"] = dict(preset.labels)
    path = out_dir / "catalog.yaml"
    _write_if_changed(path, _yaml(catalog))
    return path
