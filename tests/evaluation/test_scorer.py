"""Scores are lm-eval's, to the last digit; weights may be exchanged; everything around is left as it was."""

from __future__ import annotations

import logging
import math
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from simmerge_core.catalog import Task
from simmerge_core.evaluation import SCORE_SCHEMA, Scorer, evaluate

DOCUMENTS = 40
KINDS = [
    ("likelihood", "acc,none"),
    ("perplexed", "perplexity,none"),
    ("choice", "acc,none"),
    ("choice", "acc_norm,none"),
    ("generation", "exact_match,none"),
    ("fewshot", "acc,none"),
    ("rolling", "word_perplexity,none"),
    ("own", "right,none"),
]


def lm_eval_score(
    definitions: Path, model: Any, name: str, *, batch_size: int, tokenizer: Any = None, **options: Any
) -> Any:
    """What lm-eval's own `simple_evaluate` gives, for a folder or for a model in memory."""
    import lm_eval
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager

    lm: Any = "hf"
    arguments: dict[str, Any] = {"model_args": {"pretrained": str(model)}, "device": "cpu"}
    if not isinstance(model, Path):
        lm, arguments = HFLM(pretrained=model, tokenizer=tokenizer, batch_size=batch_size), {}
    return lm_eval.simple_evaluate(
        lm,
        tasks=[f"t_{name}"],
        task_manager=TaskManager(include_path=str(definitions), include_defaults=False),
        batch_size=batch_size,
        bootstrap_iters=0,
        **arguments,
        **options,
    )


@pytest.fixture
def in_definitions(definitions: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """lm-eval takes relative data files from the working folder, and lists the machine's packages for seconds."""
    import lm_eval.evaluator

    monkeypatch.chdir(definitions)
    monkeypatch.setattr(lm_eval.evaluator, "add_env_info", lambda results: None)
    monkeypatch.setattr(lm_eval.evaluator, "get_git_commit_hash", lambda: None)
    return definitions


@pytest.mark.parametrize(("name", "metric"), KINDS)
def test_equals_simple_evaluate_to_the_last_digit(
    name: str,
    metric: str,
    in_definitions: Path,
    tokenizer: Any,
    task_of: Callable[..., Task],
    random_model: Callable[..., Any],
) -> None:
    task = task_of(name, metric, item_sets={"all": f"0:{DOCUMENTS}"})
    ours = evaluate(random_model(0), task, tokenizer=tokenizer)
    theirs = lm_eval_score(
        in_definitions, random_model(0), name, batch_size=16, tokenizer=tokenizer, fewshot_random_seed=0
    )
    assert ours["utility"].to_list() == [theirs["results"][f"t_{name}"][metric]]
    assert ours["n"].to_list() == [DOCUMENTS]


def test_equals_lm_eval_on_the_saved_folder(
    in_definitions: Path, checkpoint: Path, task_of: Callable[..., Task]
) -> None:
    task = task_of("likelihood", "acc,none", "probability")
    ours = evaluate(checkpoint, task)
    theirs = lm_eval_score(in_definitions, checkpoint, "likelihood", batch_size=16)
    samples = sorted(theirs["samples"]["t_likelihood"], key=lambda sample: sample["doc_id"])
    for name, part in (("A", samples[:20]), ("B", samples[20:])):
        rows = ours.filter(item_set=name)
        assert rows.filter(metric="acc,none")["utility"].item() == sum(s["acc"] for s in part) / 20
        chances = [math.exp(s["filtered_resps"][0][0]) for s in part]
        assert rows.filter(metric="probability")["utility"].item() == sum(chances) / 20
        assert rows.filter(metric="probability")["stderr"].item() == pytest.approx(
            float(np.std(chances, ddof=1) / math.sqrt(20)), rel=1e-12
        )
    accuracy = ours.filter(metric="acc,none")["utility"]
    assert accuracy.mean() == pytest.approx(theirs["results"]["t_likelihood"]["acc,none"], abs=1e-15)
    assert 0.2 < float(accuracy.mean() or 0) < 0.9


@pytest.mark.parametrize(("name", "metric"), [("perplexed", "perplexity,none"), ("choice", "acc,none")])
def test_item_sets_equal_lm_eval_on_their_documents(
    name: str,
    metric: str,
    in_definitions: Path,
    tokenizer: Any,
    task_of: Callable[..., Task],
    random_model: Callable[..., Any],
) -> None:
    ours = evaluate(
        random_model(0), task_of(name, metric, item_sets={"A": "0::2", "B": "1::2"}, batch_size=1), tokenizer=tokenizer
    )
    for item_set, items in (("A", range(0, DOCUMENTS, 2)), ("B", range(1, DOCUMENTS, 2))):
        theirs = lm_eval_score(
            in_definitions,
            random_model(0),
            name,
            batch_size=1,
            tokenizer=tokenizer,
            samples={f"t_{name}": list(items)},
        )
        assert ours.filter(item_set=item_set)["utility"].item() == theirs["results"][f"t_{name}"][metric]
    if name == "perplexed":
        assert ours["stderr"].null_count() == 2


@pytest.mark.parametrize("batch_size", [1, 7, 64])
def test_per_item_answers_equal_lm_eval_bit_by_bit(
    batch_size: int, definitions: Path, tokenizer: Any, task_of: Callable[..., Task], random_model: Callable[..., Any]
) -> None:
    from lm_eval.models.huggingface import HFLM

    from simmerge_core.evaluation.benchmark import LoadedBenchmark
    from simmerge_core.evaluation.live_model import LiveModel

    for kind in ("likelihood", "choice"):
        (benchmark,) = task_of(kind, "acc,none", batch_size=batch_size).benchmarks
        loaded = LoadedBenchmark(benchmark, task_id="letters")
        live = LiveModel(pretrained=random_model(0), tokenizer=tokenizer, batch_size=3)
        loaded.score(live)
        plain = HFLM(pretrained=random_model(0), tokenizer=tokenizer, batch_size=batch_size)
        theirs = plain.loglikelihood(loaded.task.instances, disable_tqdm=True)
        assert [instance.resps[0] for instance in loaded.task.instances] == theirs


def test_long_prompts_are_cut_like_lm_eval(tokenizer: Any, random_model: Callable[..., Any]) -> None:
    from lm_eval.api.instance import Instance
    from lm_eval.models.huggingface import HFLM

    from simmerge_core.evaluation.live_model import LiveModel

    texts = [("x" * 100, "yz"), ("", "abc"), ("a ", "b"), ("q" * 63, "r"), ("q" * 63, "s")]
    instances = [Instance("loglikelihood", {}, text, 0, metadata=("t", i, 1)) for i, text in enumerate(texts)]
    ours = LiveModel(pretrained=random_model(0), tokenizer=tokenizer, batch_size=2)
    theirs = HFLM(pretrained=random_model(0), tokenizer=tokenizer, batch_size=2)
    expected = theirs.loglikelihood(instances, disable_tqdm=True)
    assert ours.loglikelihood(instances, disable_tqdm=True) == expected
    assert ours.scored(ours.prepared(ours.tokenised(instances), batch_size=2)) == expected


def test_probability_matches_an_independent_float64_forward(
    definitions: Path, tokenizer: Any, task_of: Callable[..., Task], random_model: Callable[..., Any]
) -> None:
    import json

    model = random_model(0).double()
    chances = []
    for line in (definitions / "items.jsonl").read_text().splitlines()[:20]:
        row = json.loads(line)
        prompt, answer = row["prompt"], row["answer"]
        spaces = len(prompt) - len(prompt.rstrip())
        head = tokenizer(prompt[: len(prompt) - spaces]).input_ids
        ids = torch.tensor([tokenizer(prompt + answer).input_ids])
        with torch.no_grad():
            logs = model(ids).logits.log_softmax(-1)[0]
        chances.append(math.exp(sum(logs[p - 1, ids[0, p]].item() for p in range(len(head), ids.shape[1]))))
    ours = evaluate(random_model(0), task_of("likelihood", "probability"), tokenizer=tokenizer)
    assert ours.filter(item_set="A")["utility"].item() == pytest.approx(sum(chances) / 20, rel=1e-4)


def test_exchanged_weights_give_what_a_fresh_model_gives(
    tokenizer: Any, task_of: Callable[..., Task], random_model: Callable[..., Any]
) -> None:
    task = task_of("likelihood", "acc,none", "probability")
    scorer = Scorer([task], random_model(5), tokenizer)
    for seed in (0, 1, 0):
        scorer.load(random_model(seed).state_dict())
        assert scorer.score("letters").equals(evaluate(random_model(seed), task, tokenizer=tokenizer))


def test_tied_heads_stay_tied(tokenizer: Any, task_of: Callable[..., Task], random_model: Callable[..., Any]) -> None:
    from simmerge_core.errors import EvaluationError

    task = task_of("likelihood", "probability")
    scorer = Scorer([task], random_model(5, tied=True), tokenizer)
    weights = dict(random_model(0, tied=True).state_dict())
    expected = evaluate(random_model(0, tied=True), task, tokenizer=tokenizer)
    scorer.load(weights)
    assert scorer.score(task).equals(expected)
    alone = {name: values for name, values in weights.items() if name != "lm_head.weight"}
    scorer.load(alone)
    assert scorer.score(task).equals(expected)
    assert scorer.model.lm_head.weight is scorer.model.model.embed_tokens.weight
    with pytest.raises(EvaluationError, match="tied"):
        scorer.load({**weights, "lm_head.weight": weights["lm_head.weight"] + 1})


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda w: {k: v for k, v in w.items() if k != "model.norm.weight"}, "lack the tensor 'model.norm.weight'"),
        (lambda w: {**w, "extra": torch.zeros(1)}, "no tensor 'extra'"),
        (lambda w: {**w, "model.norm.weight": torch.zeros(3)}, "'model.norm.weight' has shape"),
        (lambda w: {**w, "model.norm.weight": w["model.norm.weight"] * math.nan}, "'model.norm.weight' holds NaN"),
    ],
)
def test_unfit_weights_are_refused(
    change: Callable[[dict[str, Any]], dict[str, Any]],
    words: str,
    tokenizer: Any,
    task_of: Callable[..., Task],
    random_model: Callable[..., Any],
) -> None:
    from simmerge_core.errors import EvaluationError

    scorer = Scorer([task_of("likelihood", "acc,none")], random_model(0), tokenizer)
    with pytest.raises(EvaluationError, match=words):
        scorer.load(change(dict(random_model(1).state_dict())))


def test_seeds_repeat_only_what_they_can_change(
    tokenizer: Any, task_of: Callable[..., Task], random_model: Callable[..., Any]
) -> None:
    model = random_model(0)
    once = evaluate(model, task_of("likelihood", "acc,none", seeds=(3, 4, 5)), tokenizer=tokenizer)
    assert once["seed"].unique().to_list() == [3]
    few = evaluate(model, task_of("fewshot", "acc,none", seeds=(3, 4)), tokenizer=tokenizer)
    assert few["seed"].unique(maintain_order=True).to_list() == [3, 4]
    drawn = task_of("sampled", "exact_match,none", item_sets={"all": ":"})
    first = evaluate(model, drawn, tokenizer=tokenizer, seeds=(1, 2, 3))
    again = evaluate(model, drawn, tokenizer=tokenizer, seeds=(1, 2, 3))
    assert first.equals(again)
    assert first["seed"].to_list() == [1, 2, 3]


def test_fewshot_examples_do_not_depend_on_earlier_calls(
    tokenizer: Any, task_of: Callable[..., Task], random_model: Callable[..., Any]
) -> None:
    task = task_of("fewshot", "acc,none")
    scorer = Scorer([task], random_model(0), tokenizer)
    assert scorer.score(task).equals(scorer.score(task))


def test_frame_has_the_declared_schema(
    tokenizer: Any, task_of: Callable[..., Task], random_model: Callable[..., Any]
) -> None:
    frame = evaluate(random_model(0), task_of("likelihood", "acc,none", "probability"), tokenizer=tokenizer)
    assert dict(frame.schema) == SCORE_SCHEMA
    assert frame.select("metric", "item_set").rows() == [
        ("acc,none", "A"),
        ("acc,none", "B"),
        ("probability", "A"),
        ("probability", "B"),
    ]


def test_nothing_around_is_changed(
    tokenizer: Any, task_of: Callable[..., Task], capfd: pytest.CaptureFixture[str], random_model: Callable[..., Any]
) -> None:
    import huggingface_hub.constants
    import lm_eval.api.task

    random.seed(1)
    np.random.seed(1)
    torch.manual_seed(1)
    logging.getLogger("lm_eval").setLevel(logging.INFO)
    bar, offline = lm_eval.api.task.tqdm, huggingface_hub.constants.HF_HUB_OFFLINE
    model = random_model(0)
    before = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()
    capfd.readouterr()
    evaluate(model, task_of("sampled", "exact_match,none"), tokenizer=tokenizer)
    assert (random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()) == before
    assert logging.getLogger("lm_eval").level == logging.INFO
    assert (lm_eval.api.task.tqdm, huggingface_hub.constants.HF_HUB_OFFLINE) == (bar, offline)
    assert capfd.readouterr() == ("", "")
