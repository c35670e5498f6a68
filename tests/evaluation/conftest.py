"""A small random Llama, and benchmarks of every kind that it can be scored on."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from simmerge_core.catalog import Benchmark, Task
from simmerge_core.demo.tokenizer import END_TEXT, VOCABULARY, write_tokenizer

DOCUMENTS = 40


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def _random_model(seed: int, *, tied: bool = False) -> Any:
    """A random character-level Llama with confident, hence greedy-stable, outputs."""
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=48,
        max_position_embeddings=64,
        initializer_range=0.3,
        tie_word_embeddings=tied,
        bos_token_id=0,
        eos_token_id=0,
        pad_token_id=0,
    )
    return LlamaForCausalLM(config).eval()


@pytest.fixture(scope="session")
def random_model() -> Callable[..., Any]:
    """Makes a random model from a seed."""
    return _random_model


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of `random_model(0)`."""
    folder = tmp_path_factory.mktemp("checkpoint")
    _random_model(0).save_pretrained(folder, safe_serialization=True)
    write_tokenizer(folder, positions=64)
    return folder


@pytest.fixture(scope="session")
def tokenizer(checkpoint: Path) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(checkpoint, local_files_only=True)


@pytest.fixture(scope="session")
def definitions(tmp_path_factory: pytest.TempPathFactory, tokenizer: Any) -> Path:
    """A folder of lm-eval definitions; half of the answers are what `random_model(0)` says greedily."""
    folder = tmp_path_factory.mktemp("definitions")
    model = _random_model(0)
    rows = []
    for i in range(DOCUMENTS):
        prompt = f"{i * 37 % 101}+{i}=" if i % 4 else f"{i} words "
        ids = tokenizer(prompt, return_tensors="pt").input_ids
        with torch.no_grad():
            said = model.generate(ids, max_new_tokens=1 + i % 3, do_sample=False)[0, ids.shape[1] :]
        answer = tokenizer.decode(said, skip_special_tokens=False) if i % 2 else f"{i}{END_TEXT}"
        rows.append({"prompt": prompt, "answer": answer, "choices": ["aa", "b", answer], "gold": 2})
    (folder / "items.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    common = "dataset_path: json\ndataset_kwargs: {data_files: {test: items.jsonl}}\ntest_split: test\n"
    (folder / "_common_yaml").write_text(common + 'target_delimiter: ""\n', encoding="utf-8")
    mean = "{metric: %s, aggregation: mean, higher_is_better: true}"
    answer = "output_type: loglikelihood\ndoc_to_text: prompt\ndoc_to_target: answer\n"
    texts = {
        "likelihood": f"{answer}metric_list: [{mean % 'acc'}]\n",
        "perplexed": f"{answer}"
        "metric_list: [{metric: perplexity, aggregation: perplexity, higher_is_better: false}]\n",
        "choice": "output_type: multiple_choice\ndoc_to_text: prompt\ndoc_to_target: gold\ndoc_to_choice: choices\n"
        f"metric_list: [{mean % 'acc'}, {mean % 'acc_norm'}]\n",
        "generation": "output_type: generate_until\ndoc_to_text: prompt\ndoc_to_target: answer\n"
        f"generation_kwargs: {{until: ['{END_TEXT}'], max_gen_toks: 3, do_sample: false}}\n"
        f"metric_list: [{mean % 'exact_match'}]\n",
        "sampled": "output_type: generate_until\ndoc_to_text: prompt\ndoc_to_target: answer\n"
        f"generation_kwargs: {{until: ['{END_TEXT}'], max_gen_toks: 2, do_sample: true, temperature: 2.0}}\n"
        f"metric_list: [{mean % 'exact_match'}]\n",
        "fewshot": "output_type: loglikelihood\nnum_fewshot: 2\nfewshot_split: test\nfewshot_delimiter: '|'\n"
        f"doc_to_text: prompt\ndoc_to_target: answer\nmetric_list: [{mean % 'acc'}]\n",
        "rolling": "output_type: loglikelihood_rolling\ndoc_to_text: ''\ndoc_to_target: answer\n"
        "metric_list: [{metric: word_perplexity}]\n",
        "code": f"{answer}unsafe_code: true\nmetric_list: [{mean % 'acc'}]\n",
        "own": f"{answer}process_results: !function scoring.process\nmetric_list: [{mean % 'right'}]\n",
        "holes": f"{answer}process_results: !function scoring.with_holes\nmetric_list: [{mean % 'right'}]\n",
    }
    for name, text in texts.items():
        (folder / f"{name}.yaml").write_text(f"task: t_{name}\ninclude: _common_yaml\n{text}", encoding="utf-8")
    (folder / "scoring.py").write_text(
        "def process(doc, results):\n    return {'right': float(results[0][1])}\n\n\n"
        "def with_holes(doc, results):\n    return {'right': 1.0} if len(doc['answer']) > 2 else {}\n",
        encoding="utf-8",
    )
    return folder


@pytest.fixture(scope="session")
def task_of(definitions: Path) -> Callable[..., Task]:
    """Declare a task with one of the benchmarks of `definitions`."""

    def declare(name: str, *metrics: str, **settings: Any) -> Task:
        defaults = {"item_sets": {"A": "0:20", "B": "20:40"}, "documents": DOCUMENTS, "batch_size": 16}
        benchmark = Benchmark(name=f"t_{name}", include_path=definitions, metrics=metrics, **{**defaults, **settings})
        return Task(id="letters", probes=Path("probe.jsonl"), benchmarks=(benchmark,))

    return declare
