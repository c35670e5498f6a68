"""Scoring one model on one task: the live harness against lm-eval's `simple_evaluate`, in one run.

    python benchmarks/evaluation.py [--json] [--items 400] [--rounds 5]

The model is a random character-level Llama of 0.23M parameters, the task 400 arithmetic items with one log-likelihood
request each; one torch thread. `simple_evaluate` gets the same model in memory and a ready task manager, so that what
is compared is work per model, not start-up. Both give the same score, which is checked.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--items", type=int, default=400)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        result = measured(Path(folder), items=options.items, rounds=options.rounds)
    if options.json:
        print(json.dumps(result))
        return
    print(f"one model on one task of {result['items']} items, seconds (least of {options.rounds} rounds)")
    for name in ("ours_s", "evaluate_s", "simple_evaluate_s", "forward_s"):
        print(f"  {name.removesuffix('_s'):16} {result[name]:.4f}")
    print(f"  simple_evaluate takes {result['ratio']:.1f} times as long; the model's forward pass alone is the floor")


def measured(folder: Path, *, items: int, rounds: int) -> dict[str, Any]:
    import lm_eval
    import torch
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

    from simmerge_core.catalog import Benchmark, Task
    from simmerge_core.demo.tokenizer import END_TEXT, VOCABULARY, write_tokenizer
    from simmerge_core.evaluation import Scorer
    from simmerge_core.evaluation.surroundings import quiet

    torch.set_num_threads(1)
    torch.manual_seed(0)
    rows = [{"prompt": f"{i * 7 % 100}+{i * 13 % 97}=", "answer": f"{i * 20 % 197}{END_TEXT}"} for i in range(items)]
    (folder / "items.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    (folder / "sums.yaml").write_text(
        f"task: sums\ndataset_path: json\ndataset_kwargs: {{data_files: {{test: {folder / 'items.jsonl'}}}}}\n"
        "test_split: test\noutput_type: loglikelihood\ndoc_to_text: prompt\ndoc_to_target: answer\n"
        'target_delimiter: ""\n'
        "metric_list: [{metric: acc, aggregation: mean, higher_is_better: true}]\n",
        encoding="utf-8",
    )
    write_tokenizer(folder, positions=128)
    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=VOCABULARY,
            hidden_size=64,
            num_hidden_layers=4,
            num_attention_heads=4,
            intermediate_size=192,
            max_position_embeddings=128,
            tie_word_embeddings=False,
            bos_token_id=0,
            eos_token_id=0,
        )
    ).eval()
    benchmark = Benchmark(
        name="sums", include_path=folder, metrics=("acc,none",), item_sets={"all": f"0:{items}"}, batch_size=64
    )
    task = Task(id="sums", probes=Path("probe.jsonl"), benchmarks=(benchmark,))
    weights = {name: values.clone() for name, values in model.state_dict().items()}
    scorer = Scorer([task], model, tokenizer)

    def ours() -> float:
        scorer.load(weights)
        return float(scorer.score("sums")["utility"].item())

    with quiet():
        plain = HFLM(pretrained=model, tokenizer=tokenizer, batch_size=64)
        manager = TaskManager(include_path=str(folder), include_defaults=False)
        loaded = manager.load(["sums"])

        def evaluated() -> float:
            found = lm_eval.evaluate(plain, loaded, bootstrap_iters=0, log_samples=True)
            return float(found["results"]["sums"]["acc,none"])

        def simply() -> float:
            found = lm_eval.simple_evaluate(plain, tasks=["sums"], task_manager=manager, bootstrap_iters=0)
            return float(found["results"]["sums"]["acc,none"])

        ours()
        batches = scorer._loaded["sums"][0]._batches[0]

        def forward() -> float:
            return sum(float(scorer._lm._model_call(batch.inputs)[0, 0, 0]) for batch in batches)

        seconds: dict[str, float] = {}
        scores: dict[str, float] = {}
        cases: dict[str, Callable[[], float]] = {
            "ours": ours,
            "evaluate": evaluated,
            "simple_evaluate": simply,
            "forward": forward,
        }
        for _ in range(rounds):
            for name, run in cases.items():
                start = time.perf_counter()
                scores[name] = run()
                seconds[name] = min(seconds.get(name, float("inf")), time.perf_counter() - start)
    assert scores["ours"] == scores["evaluate"] == scores["simple_evaluate"], scores
    return {
        "items": items,
        **{f"{name}_s": round(value, 5) for name, value in seconds.items()},
        "ratio": round(seconds["simple_evaluate"] / seconds["ours"], 2),
        "ratio_evaluate": round(seconds["evaluate"] / seconds["ours"], 2),
        "overhead_over_forward": round(seconds["ours"] / seconds["forward"], 2),
    }


if __name__ == "__main__":
    main()
