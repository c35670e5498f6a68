"""Every experiment, in the order of the results page."""

from __future__ import annotations

from collections.abc import Sequence

from simmerge_core.errors import SelectionError
from simmerge_core.experiments import (
    actions,
    bandit,
    budgets,
    curves,
    feature_groups,
    held_out,
    pairs,
    plan_variants,
    plans,
    similarity_effects,
    subsets,
    transfer,
    uncertainty,
)
from simmerge_core.experiments.drawings import actions as action_drawings
from simmerge_core.experiments.drawings import bandit as bandit_drawings
from simmerge_core.experiments.drawings import budgets as budget_drawings
from simmerge_core.experiments.drawings import curves as curve_drawings
from simmerge_core.experiments.drawings import feature_groups as group_drawings
from simmerge_core.experiments.drawings import held_out as held_out_drawings
from simmerge_core.experiments.drawings import merge_sizes
from simmerge_core.experiments.drawings import pairs as pair_drawings
from simmerge_core.experiments.drawings import plan_variants as variant_drawings
from simmerge_core.experiments.drawings import plans as plan_drawings
from simmerge_core.experiments.drawings import similarity_effects as effect_drawings
from simmerge_core.experiments.drawings import subsets as subset_drawings
from simmerge_core.experiments.drawings import transfer as transfer_drawings
from simmerge_core.experiments.experiment import Experiment, JointDrawing
from simmerge_core.experiments.pages import ablations as ablation_pages
from simmerge_core.experiments.pages import comparisons as comparison_pages
from simmerge_core.experiments.pages import effects as effect_pages
from simmerge_core.experiments.pages import online as online_pages

EXPERIMENTS: tuple[Experiment, ...] = (
    Experiment("pairs", "Which operator for a pair?", pairs.run, comparison_pages.pairs, pair_drawings.pairs),
    Experiment(
        "held_out",
        "And for experts or domains never seen?",
        held_out.run,
        comparison_pages.held_out,
        held_out_drawings.held_out,
    ),
    Experiment(
        "actions",
        "Which few of many actions carry the headroom?",
        actions.run,
        comparison_pages.actions,
        action_drawings.actions,
        needs_actions="wide",
    ),
    Experiment(
        "budgets",
        "What is predicting worth in merges tried?",
        budgets.run,
        comparison_pages.budgets,
        budget_drawings.budgets,
    ),
    Experiment(
        "plans", "Which order and operators for three or four?", plans.run, comparison_pages.plans, plan_drawings.plans
    ),
    Experiment(
        "plan_variants",
        "How should plans be scored?",
        plan_variants.run,
        ablation_pages.plan_variants,
        variant_drawings.plan_variants,
    ),
    Experiment(
        "subsets",
        "What to merge out of the whole catalog?",
        subsets.run,
        ablation_pages.subsets,
        subset_drawings.subsets,
    ),
    Experiment(
        "feature_groups",
        "Which signals does the choice rest on?",
        feature_groups.run,
        ablation_pages.groups,
        group_drawings.feature_groups,
    ),
    Experiment(
        "curves",
        "How many labels and probes, and of which metric?",
        curves.run,
        ablation_pages.curves,
        curve_drawings.curves,
    ),
    Experiment(
        "similarity_effects",
        "How does similarity go with success?",
        similarity_effects.run,
        effect_pages.similarity_effects,
        effect_drawings.similarity_effects,
    ),
    Experiment("uncertainty", "Can the intervals be relied on?", uncertainty.run, ablation_pages.uncertainty),
    Experiment(
        "bandit",
        "Does a bandit keep learning when a domain arrives?",
        bandit.run,
        online_pages.bandit,
        bandit_drawings.bandit,
        version=5,
        section="bandit",
        lacking=bandit.lacking,
    ),
    Experiment(
        "transfer",
        "Does the selector carry over to larger models?",
        transfer.run,
        comparison_pages.transfer,
        transfer_drawings.transfer,
        version=2,
        needs_larger=True,
    ),
)

JOINT_DRAWINGS: tuple[JointDrawing, ...] = (
    JointDrawing(("pairs", "plans"), merge_sizes.merge_size),
    JointDrawing(("pairs", "plans"), merge_sizes.trends),
)
"""Figures that need the results of two experiments."""


def named(names: Sequence[str]) -> tuple[Experiment, ...]:
    """Those of the given names, in the order of the page; all where none is given.

    Raises
    ------
    SelectionError
        Naming what is unknown and what there is.
    """
    known = [e.name for e in EXPERIMENTS]
    unknown = [name for name in names if name not in known]
    if unknown:
        raise SelectionError(f"There is no experiment {unknown[0]!r}: choose among {', '.join(known)}.")
    return tuple(e for e in EXPERIMENTS if not names or e.name in names)
