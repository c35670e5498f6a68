"""The model card of a merged checkpoint."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING

from simmerge_core.operators.registry import operator_of, setting_of

if TYPE_CHECKING:
    from simmerge_core.merging.execute import MergedCheckpoint


def model_card(merged: MergedCheckpoint, *, names: Mapping[str, str]) -> str:
    """Markdown with front matter that model hubs read: `base_model` lists what was merged.

    Parameters
    ----------
    names
        Public name per checkpoint of the plan.
    """
    plan = merged.plan
    lines = ["---", "base_model:"]
    # A JSON string is a YAML string, whatever the name holds.
    lines += [f"- {json.dumps(name)}" for name in dict.fromkeys(names[c] for c in plan.checkpoints)]
    lines += ["library_name: transformers", "tags:", "- merge", "- simmerge", "---", ""]
    lines += [f"# Merge of {', '.join(f'`{names[c]}`' for c in plan.checkpoints)}", ""]
    lines += ["This model was merged from fine-tuned checkpoints without training, in this order:", ""]
    lines += [
        "| step | checkpoint | operator | weight of this checkpoint | parameters | fingerprint |",
        "|---|---|---|---|---|---|",
    ]
    for number, checkpoint in enumerate(plan.checkpoints, start=1):
        print_of = merged.fingerprints[checkpoint][:12]
        if number == 1:
            lines.append(f"| 1 | `{names[checkpoint]}` | – | – | – | `{print_of}` |")
            continue
        action = plan.actions[number - 2]
        params = ", ".join(f"{k} = {v:g}" for k, v in setting_of(action).params.items()) or "–"
        lines.append(
            f"| {number} | `{names[checkpoint]}` | {action.operator} | {action.alpha:g} | {params} | `{print_of}` |"
        )
    lines += [
        "",
        f"Plan: `{plan}`. Weights: {merged.dtype}, {merged.parameters:,} parameters. Recipe: `{merged.recipe_key}`.",
        "",
    ]
    if plan.actions:
        lines += ["Operators:", ""]
        lines += [
            f"- `{o.name}`: {o.summary} ({o.citation})." for o in dict.fromkeys(operator_of(a) for a in plan.actions)
        ]
        lines.append("")
    lines += [
        "`simmerge.json` holds the full provenance, `mergekit_config.yml` the nearest mergekit configuration.",
        "",
    ]
    return "\n".join(lines)
