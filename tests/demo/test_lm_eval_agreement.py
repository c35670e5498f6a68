"""lm-eval builds the token ids that were trained on, and scores as greedy decoding does."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from simmerge_core.demo.checkpoint_folder import read_parameters
from simmerge_core.demo.describing import read_items, score_items
from simmerge_core.demo.presets import PRESETS
from simmerge_core.demo.tokenizer import END_ID, END_TEXT, encode

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def scored(tiny_catalog: Path):  # type: ignore[no-untyped-def]
    """(lm-eval model, items, lm-eval's samples in document order) of a tiny expert on its own domain."""
    from lm_eval.evaluator import evaluate
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager

    torch.set_num_threads(1)
    root = tiny_catalog.parent
    folder = root / "checkpoints" / "instruct-01"
    model = AutoModelForCausalLM.from_pretrained(folder, local_files_only=True)
    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    language_model = HFLM(pretrained=model, tokenizer=tokenizer, batch_size=128)
    manager = TaskManager(include_path=str(root / "tasks" / "lm_eval"), include_defaults=False)
    with contextlib.chdir(root / "tasks" / "lm_eval"):  # where lm-eval takes the definitions' paths from
        tasks = manager.load(["simmerge_demo_instruct"])
        results = evaluate(language_model, tasks, bootstrap_iters=0, log_samples=True)
    samples = sorted(results["samples"]["simmerge_demo_instruct"], key=lambda sample: sample["doc_id"])
    items = [item for name in ("A", "B") for item in read_items(root / "tasks" / "instruct" / f"{name}.jsonl")]
    return language_model, items, samples


def test_lm_eval_builds_the_trained_ids(scored) -> None:  # type: ignore[no-untyped-def]
    language_model, items, _ = scored
    for prompt, answer in items:
        context, continuation = language_model._encode_pair(prompt, answer + END_TEXT)
        assert context == encode(prompt)
        assert continuation == [*encode(answer), END_ID]


def test_lm_eval_scores_as_the_engine(scored, tiny_catalog: Path) -> None:  # type: ignore[no-untyped-def]
    _, items, samples = scored
    architecture = PRESETS["tiny"].architecture
    parameters = read_parameters(tiny_catalog.parent / "checkpoints" / "instruct-01", architecture)
    exact, log_likelihood = score_items(parameters, architecture, items)
    assert [sample["filtered_resps"][0][1] for sample in samples] == exact.tolist()
    found = torch.tensor([sample["filtered_resps"][0][0] for sample in samples], dtype=torch.float64)
    torch.testing.assert_close(found, log_likelihood, atol=1e-4, rtol=1e-4)


def test_greedy_exact_match_is_what_generation_gives(scored) -> None:  # type: ignore[no-untyped-def]
    language_model, items, samples = scored
    for (prompt, answer), sample in list(zip(items, samples, strict=True))[:24]:
        ids = torch.tensor([encode(prompt)])
        generated = language_model.model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=8)
        new = generated[0, ids.shape[1] :].tolist()
        text = language_model.tokenizer.decode(new[: new.index(END_ID)]) if END_ID in new else None
        assert (text == answer) == sample["filtered_resps"][0][1]
