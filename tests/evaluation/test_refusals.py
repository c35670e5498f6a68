"""What cannot be scored is refused in one sentence that names task, benchmark and key."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from simmerge_core.catalog import Task
from simmerge_core.errors import EvaluationError
from simmerge_core.evaluation import Scorer, benchmark, check_task, evaluate


@pytest.mark.parametrize(
    ("name", "metric", "words"),
    [
        ("likelihood", "acc,strict", r"'letters'.*'t_likelihood'.*'acc,strict' is not produced.*acc,none"),
        ("likelihood", "acc", "'acc' is not produced"),
        ("choice", "probability", "needs output_type loglikelihood"),
    ],
)
def test_metric_keys_that_cannot_be(name: str, metric: str, words: str, task_of: Callable[..., Task]) -> None:
    with pytest.raises(EvaluationError, match=words):
        check_task(task_of(name, metric))


def test_metric_that_lm_eval_silently_leaves_out(
    tokenizer: Any, task_of: Callable[..., Task], random_model: Callable[..., Any]
) -> None:
    with pytest.raises(EvaluationError, match=r"'letters'.*'t_choice'.*'f2,none' is not produced.*acc,none"):
        evaluate(random_model(0), task_of("choice", "f2,none"), tokenizer=tokenizer)


def test_metric_that_skips_documents(
    tokenizer: Any, task_of: Callable[..., Task], random_model: Callable[..., Any]
) -> None:
    with pytest.raises(EvaluationError, match=r"'right,none' has no value for \d+ of 20 documents"):
        evaluate(random_model(0), task_of("holes", "right,none"), tokenizer=tokenizer)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"documents": 41}, "declares 41 documents, but lm-eval finds 40"),
        ({"item_sets": {"A": "0:20", "B": "20:50"}}, "item set 'B' asks for documents 20:50"),
        ({"item_sets": {"A": "50:"}}, "item set 'A' asks for documents 50:"),
        ({"item_sets": {"A": "0:20", "B": "19:40"}}, "document 19 is in the item sets 'A' and 'B'"),
    ],
)
def test_item_sets_that_do_not_fit(settings: dict[str, Any], words: str, task_of: Callable[..., Task]) -> None:
    with pytest.raises(EvaluationError, match=words):
        check_task(task_of("likelihood", "acc,none", **settings))


def test_model_code_runs_only_with_consent(task_of: Callable[..., Task]) -> None:
    with pytest.raises(EvaluationError, match="executes code that the model writes"):
        check_task(task_of("code", "acc,none"))
    check_task(task_of("code", "acc,none", unsafe_code=True))


def test_nan_from_the_model(tokenizer: Any, task_of: Callable[..., Task], random_model: Callable[..., Any]) -> None:
    import torch

    model = random_model(0)
    with torch.no_grad():
        model.lm_head.weight[3] = float("nan")
    for name in ("likelihood", "choice"):
        with pytest.raises(EvaluationError, match="document 0 is not a number"):
            evaluate(model, task_of(name, "acc,none"), tokenizer=tokenizer)


def test_unknown_benchmark(task_of: Callable[..., Task], monkeypatch: pytest.MonkeyPatch) -> None:
    from lm_eval.tasks import TaskManager

    # Indexing lm-eval's own fourteen thousand definitions takes seconds and is lm-eval's business.
    monkeypatch.setattr(benchmark, "_manager", lambda path: TaskManager(include_path=str(path), include_defaults=False))
    task = task_of("likelyhood", "acc,none")
    with pytest.raises(EvaluationError, match=r"'t_likelyhood' is not known to lm-eval.*t_likelihood"):
        check_task(task)


def test_data_on_the_hub_is_not_fetched(tmp_path: Path, task_of: Callable[..., Task]) -> None:
    (tmp_path / "far.yaml").write_text(
        "task: t_far\ndataset_path: nobody/nothing-of-this-name\ntest_split: test\noutput_type: loglikelihood\n"
        "doc_to_text: a\ndoc_to_target: b\n"
    )
    declared = task_of("likelihood", "acc,none")
    far = declared.benchmarks[0].model_copy(update={"name": "t_far", "include_path": tmp_path})
    task = declared.model_copy(update={"benchmarks": (far,)})
    with pytest.raises(EvaluationError, match=r"'t_far' cannot be loaded by lm-eval \(the network is off"):
        check_task(task)


def test_model_without_tokenizer(task_of: Callable[..., Task], random_model: Callable[..., Any]) -> None:
    with pytest.raises(EvaluationError, match="needs its tokenizer"):
        evaluate(random_model(0), task_of("likelihood", "acc,none"))


def test_no_seeds(tokenizer: Any, task_of: Callable[..., Task], random_model: Callable[..., Any]) -> None:
    with pytest.raises(EvaluationError, match="No seeds"):
        Scorer([task_of("likelihood", "acc,none")], random_model(0), tokenizer, seeds=())


def test_unknown_task_of_a_scorer(
    tokenizer: Any, task_of: Callable[..., Task], random_model: Callable[..., Any]
) -> None:
    scorer = Scorer([task_of("likelihood", "acc,none")], random_model(0), tokenizer)
    with pytest.raises(EvaluationError, match="'numbers' is not among"):
        scorer.score("numbers")
