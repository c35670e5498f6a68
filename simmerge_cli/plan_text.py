"""What `simmerge plan` says about its plans: the target in words, what is open, and why the operators were chosen."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from simmerge_core.planning import Settlement, Target
    from simmerge_core.selector import Explanation


def target_text(target: Target) -> str:
    """``math``, ``the minimum of math and code``, ``0.67 math + 0.33 code``."""
    if len(target.tasks) == 1:
        return target.tasks[0]
    if target.combine == "min":
        return f"the minimum of {listed(target.tasks)}"
    return " + ".join(f"{weight:.2g} {task}" for task, weight in zip(target.tasks, target.weights, strict=True))


def settlement_notes(settlement: Settlement, *, plans: int, cut: bool, k: int) -> list[str]:
    """Which of so many listed plans cannot be told apart from the first, and what would settle it.

    `cut`: there may be more plans than are listed.
    """
    level = f"{100 * settlement.level:.0f} %"
    notes = []
    if settlement.cannot_be_told_apart:
        ranks = settlement.cannot_be_told_apart
        which = f"Plan {ranks[0]}" if len(ranks) == 1 else f"Plans {listed(_ranges(ranks))}"
        notes.append(f"{which} cannot be told apart from the first at {level}.{_what_settles(settlement)}")
        if cut and ranks[-1] == plans:
            notes.append("Plans that are not listed may be as good: see more with --top.")
    elif plans > 1:
        notes.append(f"The first plan differs from every other that is listed at {level}.")
    if settlement.usual_items is not None and settlement.resolved is not None:
        notes.append(
            f"The {settlement.usual_items} items of a label resolve differences from {settlement.resolved:.3f} on."
        )
    if k > 2:
        notes.append(
            f"Intervals are calibrated on merges of two; for {k} they leave out the error of propagated features."
        )
    return notes


def unseen_note(checkpoints: Sequence[str], *, calibrated: bool) -> str:
    """That the selector has no labels of these, and what the intervals of plans with them are worth."""
    which = (
        "come from checkpoints that were held out of training, and are wider"
        if calibrated
        else "are those of labelled checkpoints, and too narrow: there were too few to hold any out"
    )
    return f"The selector has no labels of {listed(checkpoints)}: intervals of plans with such a checkpoint {which}."


def explanation_table(explanation: Explanation, *, step: int) -> tuple[str, tuple[str, ...], list[tuple[Any, ...]]]:
    """Title, columns and rows of one step's explanation."""
    about = "" if explanation.half_width is None else f" ± {explanation.half_width:.4f}"
    title = (
        f"Step {step}: {explanation.action} is predicted {explanation.lead:.4f}{about} above {explanation.reference}, "
        f"{explanation.usual:+.4f} with every feature at its mean; what moved it:"
    )
    rows = [(group, f"{contribution:+.4f}", features) for group, contribution, features in explanation.rows()]
    return title, ("feature group", "contribution", "farthest from the training mean"), rows


def listed(words: Sequence[str]) -> str:
    """``a``, ``a and b``, ``a, b and c``."""
    return " and ".join(filter(None, (", ".join(words[:-1]), words[-1])))


def _what_settles(settlement: Settlement) -> str:
    if settlement.items_each is None:
        return " How many items would settle it is unknown: the labels have no standard errors."
    return (
        f" To settle it, execute these {settlement.plans} and score each on {settlement.items_each:,} items per "
        f"benchmark: a difference of {settlement.difference:.3f} then shows at 95 %, four times in five (for items "
        "drawn anew each time; scored on the same items, fewer do)."
    )


def _ranges(numbers: Sequence[int]) -> list[str]:
    """Ascending numbers with runs of three and more shortened: 2, 4–9."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    return [
        text for run in runs for text in ([f"{run[0]}–{run[-1]}"] if len(run) > 2 else [str(number) for number in run])
    ]
