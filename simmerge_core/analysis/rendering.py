"""The report as text: tables for a terminal and Markdown for a file, from the same rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Group

_FIRST = (
    "simmerge",
    "ridge",
    "gradient_boosting",
    "norm_ratio",
    "best_fixed_per_task",
    "best_fixed",
    "random",
    "oracle",
    "oracle_same_items",
)
_LAST = ("keep_better_parent", "parent_expert", "parent_auxiliary", "base")
_WORDS = {
    "simmerge": "SimMerge",
    "ridge": "ridge regression",
    "gradient_boosting": "gradient boosting",
    "norm_ratio": "norm-ratio rule",
    "best_fixed": "best fixed action",
    "best_fixed_per_task": "best fixed action per task",
    "random": "random action",
    "oracle": "oracle, chosen on other items",
    "oracle_same_items": "oracle, same items (optimistic)",
    "keep_better_parent": "keep the better parent",
    "parent_expert": "task expert, unmerged",
    "parent_auxiliary": "auxiliary, unmerged",
    "base": "base, unmerged",
    "expert_last_best_fixed": "expert last, best fixed operator",
    "random_order": "random order, SimMerge's operators",
    "random_plan": "random plan",
    "linear": "Linear",
    "slerp": "SLERP",
    "ties": "TIES",
}
_ROLES = {
    "expert_last_best_fixed": "expert last, best fixed operator",
    "random_order": "random order, best fixed operator",
    "parent": "parent, unmerged",
}
_PLAN_METHODS = (
    "simmerge",
    "expert_last_best_fixed",
    "random_order",
    "random_plan",
    "oracle",
    "parent_expert",
    "parent_auxiliary",
)


@dataclass(frozen=True, slots=True)
class TextTable:
    """One table: title, a line below it, header, rows of ready text; `strong` is the row to set apart."""

    title: str
    note: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    strong: str = "SimMerge"


@dataclass(frozen=True, slots=True)
class Rendered:
    """A report as text.

    Attributes
    ----------
    headlines
        The few lines that say what was predicted, what was executed and how it compares.
    tables
        Every comparison in full.
    """

    headlines: tuple[TextTable, ...]
    tables: tuple[TextTable, ...]

    @property
    def markdown(self) -> str:
        """Everything as Markdown, headlines first."""
        return "\n\n".join(_markdown(table) for table in (*self.headlines, *self.tables)) + "\n"

    @property
    def short(self) -> Group:
        """The headlines as one rich renderable."""
        from rich.console import Group

        return Group(*(_rich(table) for table in self.headlines))

    @property
    def terminal(self) -> Group:
        """Everything as one rich renderable, headlines first."""
        from rich.console import Group

        return Group(*(_rich(table) for table in (*self.headlines, *self.tables)))


def render(report: Mapping[str, Any]) -> Rendered:
    """Lay out a report as tables: predicted, executed, and compared with every baseline.

    Parameters
    ----------
    report
        As `analysis.report` returns it, also after a round trip through JSON.
    """
    tables = [*_requests(report.get("merge_requests", {}))]
    for title, section in (("Paper actions", report), ("Extended actions", report.get("extended"))):
        if section is not None and "pairwise" in section:
            tables += _pairwise(title, section)
    tables += _plans("", report)
    tables += _plans("Extended actions: ", report.get("extended", {}))
    return Rendered((*_executed(report), _comparison(report)), tuple(tables))


def _executed(report: Mapping[str, Any]) -> list[TextTable]:
    """One line per merge request: its plan, predicted and executed, beside its strongest rivals."""
    requests = report.get("merge_requests", {})
    if not requests:
        return []
    # The plan was chosen by the selector of the first direction, so the other items are the honest ones.
    scored_on = report["pairwise"]["directions"][0]["scored_on"]
    note = f"Utility on items {scored_on}; the selector learned from others. Random order is the mean over orders."
    roles = ("expert_last_best_fixed", "random_order", "parent", "base")
    rows = []
    for name, request in requests.items():
        scored = {
            role: [
                m["utility"][scored_on] for m in request["models"] if m["role"] == role and scored_on in m["utility"]
            ]
            for role in ("simmerge", *roles)
        }
        rows.append(
            (
                name,
                request["task"],
                request["plan"],
                f"{number(request['predicted_utility'], 3)} ± {number(request['uncertainty'], 3)}",
                *(number(_of_role(role, scored[role]), 3) for role in ("simmerge", *roles)),
            )
        )
    header = (
        "Request",
        "Target",
        "Plan",
        "Predicted",
        "Executed",
        "Expert last",
        "Random order",
        "Best parent",
        "Base",
    )
    return [TextTable("Merge requests: predicted and executed", note, header, tuple(rows), strong="")]


def _of_role(role: str, values: Sequence[float]) -> float | None:
    """The best parent; the mean over random orders."""
    if not values:
        return None
    return sum(values) / len(values) if role == "random_order" else max(values)


def _comparison(report: Mapping[str, Any]) -> TextTable:
    """GapClosed of SimMerge and of its main rivals, one line per kind of merge."""
    lines: list[tuple[str, Mapping[str, Any], int, str, str]] = [
        (
            "two-way, paper actions, expert's task",
            report["pairwise"],
            report["pairwise"]["test_pairs"],
            "best_fixed",
            "random",
        )
    ]
    if "extended" in report:
        extended = report["extended"]["pairwise"]
        lines.append(
            ("two-way, extended actions, both tasks", extended, extended["test_pairs"], "best_fixed", "random")
        )
    for k, plans in report.get("plans", {}).items():
        if "gap_closed" in plans:
            lines.append(
                (f"{k}-way plans, expert's task", plans, plans["rows"], "expert_last_best_fixed", "random_order")
            )
    for k, plans in report.get("extended", {}).get("plans", {}).items():
        if "gap_closed" in plans:
            lines.append(
                (
                    f"{k}-way plans, extended actions, all parents' tasks",
                    plans,
                    plans["rows"],
                    "expert_last_best_fixed",
                    "random_order",
                )
            )
    rows = tuple(
        (
            name,
            str(count),
            *(number(figures["gap_closed"].get(key), 1) for key in ("simmerge", fixed, random, "oracle")),
        )
        for name, figures, count, fixed, random in lines
    )
    header = ("Merges", "Cases", "SimMerge", "Best fixed", "Random", "Oracle")
    note = (
        f"GapClosed in %: 0 is the auxiliary, 100 the task's expert; {_where(report['pairwise'])}. For plans the best "
        "fixed operator has the expert last, and random is the order."
    )
    return TextTable("Held-out merges: how much of the gap is closed", note, header, rows, strong="")


def _pairwise(title: str, section: Mapping[str, Any]) -> list[TextTable]:
    pairwise = section["pairwise"]
    has_min = "min_gap_closed" in pairwise
    where = _where(pairwise)
    names = [n for n in _FIRST if n in pairwise["utility"]]
    actions = [n for n in pairwise["utility"] if n not in (*_FIRST, *_LAST)]
    names += sorted(actions, key=lambda n: -(pairwise["utility"][n] or 0.0))
    names += [n for n in _LAST if n in pairwise["utility"]]
    header = ("Method", "Utility", "GapClosed %", *(("worse task %",) if has_min else ()), "Right choice %", "Regret")
    rows = tuple(
        (
            word(name),
            number(pairwise["utility"][name], 4),
            number(pairwise["gap_closed"][name], 1),
            *((number(pairwise["min_gap_closed"][name], 1),) if has_min else ()),
            number(_percent(pairwise["accuracies"].get(name)), 1),
            number(pairwise["regret"].get(name), 4),
        )
        for name in names
    )
    utility = "expert's task" if pairwise["target"] == "expert_task" else "mean over both parents' tasks"
    captured = pairwise.get("headroom_captured")
    note = f"{pairwise['test_pairs']} held-out pairs, {utility}; {where}."
    if captured is not None and captured["value"] is not None:
        note += (
            f" SimMerge captures {number(100 * captured['value'], 0)} % of the oracle's gain over the best fixed "
            f"action (95 % interval {_span(captured['ci95'], 100.0, 0)})."
        )
    note += (
        f" The winner is the same on both item sets in {number(100 * pairwise['winner_agreement'], 0)} % of pairs; "
        f"{number(100 * pairwise['tie_share'], 0)} % tie exactly."
    )
    tasks = pairwise["per_task"]
    per_task = TextTable(
        f"{title}: GapClosed per task (%)",
        "0 is the auxiliary, 100 the task's expert.",
        ("Method", *tasks, "Mean"),
        tuple(
            (
                word(name),
                *(number(tasks[task]["methods"][name]["gap_closed"], 1) for task in tasks),
                number(pairwise["gap_closed"][name], 1),
            )
            for name in names
            if name not in ("parent_expert", "parent_auxiliary")
        ),
    )
    return [TextTable(f"{title}: two-way merges", note, header, rows), per_task, *_held_out(title, section)]


def _held_out(title: str, section: Mapping[str, Any]) -> list[TextTable]:
    """The comparison on experts that no model has seen, where the report holds it."""
    held = section.get("held_out_experts")
    if held is None or "not_computed" in held:
        return []
    names = [n for n in _FIRST if n in held["utility"]]
    captured = held["headroom_captured"]
    note = (
        f"{len(held['folds'])} folds, {held['rows']} pairs with an expert that the selector never saw; {_where(held)}. "
        f"SimMerge captures {number(_percent(captured['value']), 0)} % of the oracle's gain over the best fixed action "
        f"(95 % interval {_span(captured['ci95'], 100.0, 0)})."
    )
    rows = tuple(
        (
            word(n),
            number(held["utility"][n], 4),
            number(held["gap_closed"][n], 1),
            number(_percent(held["accuracies"].get(n)), 1),
            number(held["regret"].get(n), 4),
        )
        for n in names
    )
    header = ("Method", "Utility", "GapClosed %", "Right choice %", "Regret")
    return [TextTable(f"{title}: held-out experts", note, header, rows)]


def _where(figures: Mapping[str, Any]) -> str:
    first = figures["directions"][0]
    if not first["honest"]:
        return f"chosen and scored on items {first['scored_on']} (optimistic)"
    reverse = ", and the reverse" if len(figures["directions"]) > 1 else ""
    return f"chosen on items {first['chosen_on']}, scored on {first['scored_on']}{reverse}"


def _plans(title: str, section: Mapping[str, Any]) -> list[TextTable]:
    tables = []
    for k, figures in section.get("plans", {}).items():
        if "simmerge" not in figures:
            continue
        names = [n for n in _PLAN_METHODS if n in figures]
        names += sorted(n for n in figures["gap_closed"] if n not in _PLAN_METHODS)
        gain = figures["gain_over_expert_last_best_fixed"]["simmerge"]
        note = (
            f"{figures['configurations']} configurations, {figures['executed_plans']} executed plans; "
            f"{_where(figures)}. SimMerge against expert last with the best fixed operator: "
            f"{number(gain['value'], 4, sign=True)} (95 % interval {_span(gain['ci95'], 1.0, 4)})."
        )
        if figures.get("target") == "parents_tasks":
            note += (
                " Utility is the mean over the tasks of all their checkpoints; the oracle chooses among "
                f"{number(figures['mean_pool'], 1)} plans on average, those that were scored on all of them."
            )
        if figures["without_needed_plans"]:
            note += f" {figures['without_needed_plans']} without the chosen plan among the executed are left out."
        rows = tuple((word(n), number(figures[n], 4), number(figures["gap_closed"].get(n), 1)) for n in names)
        tables.append(TextTable(f"{title}{k}-way plans", note, ("Plan chosen by", "Utility", "GapClosed %"), rows))
    return tables


def _requests(requests: Mapping[str, Any]) -> list[TextTable]:
    tables = []
    for name, request in requests.items():
        item_sets = sorted({s for model in request["models"] for s in model["utility"]})
        rows = []
        for model in request["models"]:
            ours = model["role"] == "simmerge"
            predicted = (
                f"{number(request['predicted_utility'], 3)} ± {number(request['uncertainty'], 3)}" if ours else ""
            )
            rows.append(
                (
                    _ROLES.get(model["role"], word(model["role"])),
                    model["model"],
                    predicted,
                    *(number(model["utility"].get(s), 3) for s in item_sets),
                )
            )
        note = f"Target {request['task']}, {request['k']} checkpoints, found by {request['search']} search."
        header = ("Role", "Model", "Predicted", *(f"Executed, items {s}" for s in item_sets))
        tables.append(TextTable(f"Merge request {name}", note, header, tuple(rows)))
    return tables


def word(name: str) -> str:
    """A method's name for readers."""
    return _WORDS.get(name, name.replace("_", " "))


def number(value: float | None, digits: int, *, sign: bool = False) -> str:
    """A figure with fixed digits; a dash where there is none."""
    if value is None:
        return "–"
    text = f"{value:+.{digits}f}" if sign else f"{value:.{digits}f}"
    return text.replace("-", "−")


def _percent(value: float | None) -> float | None:
    return None if value is None else 100.0 * value


def _span(ends: Sequence[float | None], scale: float, digits: int) -> str:
    if ends[0] is None or ends[1] is None:
        return "undefined"
    return f"{number(scale * ends[0], digits)} to {number(scale * ends[1], digits)}"


def _markdown(table: TextTable) -> str:
    def line(cells: Sequence[str]) -> str:
        return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"

    rows = [tuple(f"**{c}**" if c else c for c in row) if row[0] == table.strong else row for row in table.rows]
    rule = "|" + "|".join(" --- " if _is_text(table, column) else " ---: " for column in range(len(table.header))) + "|"
    return "\n".join([f"### {table.title}", "", table.note, "", line(table.header), rule, *map(line, rows)])


def _is_text(table: TextTable, column: int) -> bool:
    return column == 0 or table.header[column] in ("Model", "Plan", "Target")


def _rich(table: TextTable) -> Any:
    from rich.table import Table

    built = Table(
        title=table.title, caption=table.note, title_justify="left", caption_justify="left", title_style="bold"
    )
    for column, name in enumerate(table.header):
        built.add_column(name, justify="left" if _is_text(table, column) else "right", overflow="fold")
    for row in table.rows:
        built.add_row(*row, style="bold green" if row[0] == table.strong else None)
    return built
