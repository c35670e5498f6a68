"""Evaluation of one model on one task through lm-eval, in process, and the store of everything ever evaluated."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from simmerge_core.evaluation.definition import evaluation_key, task_key, tokenizer_key
    from simmerge_core.evaluation.scorer import Scorer, check_task, evaluate
    from simmerge_core.evaluation.store import SCORE_SCHEMA, EvaluationStore

_HOMES = {
    "SCORE_SCHEMA": "store",
    "EvaluationStore": "store",
    "Scorer": "scorer",
    "check_task": "scorer",
    "evaluate": "scorer",
    "evaluation_key": "definition",
    "task_key": "definition",
    "tokenizer_key": "definition",
}

__all__ = [
    "SCORE_SCHEMA",
    "EvaluationStore",
    "Scorer",
    "check_task",
    "evaluate",
    "evaluation_key",
    "task_key",
    "tokenizer_key",
]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        from importlib import import_module

        return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
