"""The nearest mergekit configuration of a plan, one document per step (for `mergekit-multi`)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from simmerge_core.merging.steps import Step, steps_of
from simmerge_core.plans import Plan


def mergekit_config(plan: Plan, *, paths: Mapping[str, Path], base: Path | None, dtype: str) -> str:
    """YAML text; a comment stands where an operator has no method there, or a method that differs.

    Parameters
    ----------
    paths
        Folder per checkpoint of the plan.
    base
        Folder of the base, for task-vector operators.
    dtype
        Storage dtype; left out where tensors have several.
    """
    steps = steps_of(plan)
    first = str(paths[plan.checkpoints[0]])
    if not steps:
        return yaml.safe_dump({"merge_method": "passthrough", "models": [{"model": first}]}, sort_keys=False)
    current, documents = first, []
    for number, (step, checkpoint) in enumerate(zip(steps, plan.checkpoints[1:], strict=True), start=1):
        name = f"step-{number}"
        documents.append(
            _document(
                step,
                current,
                str(paths[checkpoint]),
                None if base is None else str(base),
                dtype,
                name if len(steps) > 1 else None,
            )
        )
        current = name
    return "---\n".join(documents)


def _document(step: Step, a: str, b: str, base: str | None, dtype: str, name: str | None) -> str:
    operator = step.operator
    if operator.mergekit is None:
        return (
            f"# {step.action}: mergekit has no equivalent of {operator.name} ({operator.summary}; "
            f"{operator.citation}).\n"
            f"# inputs: {a} and {b}{f', base {base}' if operator.needs_base else ''}\n"
        )
    body: dict[str, Any] = {"name": name} if name else {}
    body["merge_method"] = operator.mergekit
    body.update(_method(step, a, b, base))
    if "+" not in dtype:
        body["dtype"] = dtype
    comment = f"# {step.action}: {operator.mergekit_note}\n" if operator.mergekit_note else ""
    return comment + yaml.safe_dump(body, sort_keys=False)


def _method(step: Step, a: str, b: str, base: str | None) -> dict[str, Any]:
    alpha, params = step.setting.alpha, step.setting.params
    if step.operator.mergekit == "slerp":
        return {"base_model": a, "models": [{"model": a}, {"model": b}], "parameters": {"t": alpha}}
    # Without normalisation a method's weights are plain factors of the task vectors.
    scale = 2.0 * params["lam"] if step.operator.mergekit in ("task_arithmetic", "dare_linear", "breadcrumbs") else 1.0
    weights = {a: scale * (1.0 - alpha), b: scale * alpha}
    density = {name: params[name] for name in ("density", "gamma") if name in params}
    body: dict[str, Any] = {"base_model": base} if step.operator.needs_base else {}
    body["models"] = [{"model": m, "parameters": {"weight": round(w, 12), **density}} for m, w in weights.items()]
    if step.operator.needs_base:
        ties = step.operator.mergekit == "ties"
        body["parameters"] = {"normalize": ties, **({"lambda": params["lam"]} if ties else {})}
    return body
