"""Figures of `curves`: how many training pairs and probe prompts are enough, and which labels to learn from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from simmerge_core.analysis.figures.style import INK, MUTED, Form, colour, draw, quiet
from simmerge_core.experiments.drawings.estimates import Estimate, estimate, mean
from simmerge_core.experiments.drawings.forest import Extent, Mark, Panel, Row, forest
from simmerge_core.experiments.drawings.heading import head
from simmerge_core.experiments.drawings.lines import Line, paint_lines
from simmerge_core.experiments.drawings.names import OTHER
from simmerge_core.experiments.drawings.notes import INTERVALS, along, beyond, note
from simmerge_core.experiments.result import Result

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_SHARE = "Share of the oracle's gain"
_BOUNDS = (-1.0, 1.5)
_DEFAULT = "simmerge"
_EXACT = "exact match"


def curves(result: Result, form: Form) -> Mapping[str, bytes]:
    """Both curves, and the labels as a small forest plot."""
    return {
        "training_size": _training_size(result, form),
        "probe_size": _probe_size(result, form),
        "labels": _labels(result, form),
    }


def _training_size(result: Result, form: Form) -> bytes:
    section = result.figures["training_size"]
    draws = _by_size(section)
    places = {size: float(number) for number, size in enumerate(sorted(draws))}
    last = float(len(places))
    whole = estimate(section["captured"][_DEFAULT])
    means = [(places[size], Estimate(mean(e.value for e in draws[size]))) for size in places]

    def paint(figure: Figure) -> None:
        axes = figure.add_subplot()
        for size, place in places.items():
            for x, e in _beside(place, draws[size]):
                _paint_draw(axes, x, e)
        paint_lines(
            axes, [Line("mean of the draws", [*means, (last, Estimate(whole.value))], colour(_DEFAULT), strong=True)]
        )
        if whole.ends is not None:
            axes.plot([last, last], whole.ends, color=colour(_DEFAULT), linewidth=1.6, alpha=0.55)
        axes.plot([], [], color=OTHER, marker="o", markersize=5, linewidth=1.6, alpha=0.6, label="one draw")
        _finish(
            axes,
            [*places.values(), last],
            [*map(str, places), f"{section['training_pairs']}\n(all)"],
            "Training pairs (expert and auxiliary)",
        )
        head(figure, "How many training pairs are enough", _about(result, section), legend=_in_order(axes))

    return draw(paint, width=9.0, height=4.2, form=form)


def _paint_draw(axes: Axes, x: float, figure: Estimate) -> None:
    if figure.ends is not None:
        axes.plot([x, x], figure.ends, color=OTHER, linewidth=1.4, alpha=0.4, zorder=1.8)
    if figure.value is not None:
        axes.plot([x], [figure.value], color=OTHER, marker="o", markersize=5, alpha=0.8, zorder=1.9)


def _beside(place: float, figures: Sequence[Estimate]) -> list[tuple[float, Estimate]]:
    """Draws of one size, next to each other and to their mean so that all intervals stay visible."""
    return [(place + 0.09 + 0.07 * number, figure) for number, figure in enumerate(figures)]


def _by_size(section: Mapping[str, Any]) -> dict[int, list[Estimate]]:
    """The draws of each number of training pairs."""
    found: dict[int, list[Estimate]] = {}
    for name in sorted(section["captured"]):
        if name != _DEFAULT:
            found.setdefault(int(name.partition(" ")[0]), []).append(estimate(section["captured"][name]))
    return found


def _probe_size(result: Result, form: Form) -> bytes:
    section = result.figures["probe_size"]
    sizes = {int(n.partition(" ")[0]): estimate(f) for n, f in section["captured"].items() if n != _DEFAULT}
    points = [(float(number), sizes[size]) for number, size in enumerate(sorted(sizes))]
    points.append((float(len(points)), estimate(section["captured"][_DEFAULT])))

    def paint(figure: Figure) -> None:
        axes = figure.add_subplot()
        paint_lines(axes, [Line("SimMerge", points, colour(_DEFAULT), strong=True)])
        _finish(
            axes, [x for x, _ in points], [*map(str, sorted(sizes)), str(section["prompts"])], "Probe prompts per task"
        )
        head(figure, "How many probe prompts are enough", _about(result, section))

    return draw(paint, width=9.0, height=3.8, form=form)


def _finish(axes: Axes, places: Sequence[float], names: Sequence[str], what: str) -> None:
    """What both curves share: none and all of the oracle's gain as lines, sizes as names."""
    axes.axhline(0, color=MUTED, linewidth=1.1)
    axes.axhline(1, color=INK, linewidth=1.0, linestyle=(0, (4, 3)))
    for height, name in ((0, "best fixed"), (1, "oracle")):
        axes.annotate(
            name, (1, height), (5, 0), xycoords=("axes fraction", "data"), textcoords="offset points",
            va="center", fontsize=9, color=MUTED,
        )  # fmt: skip
    axes.set_xticks(places, names)
    axes.set_xlim(min(places) - 0.4, max(places) + 0.4)
    low, high = axes.get_ylim()
    axes.set_ylim(max(low, _BOUNDS[0]), min(high, _BOUNDS[1]))
    axes.set_ylabel(_SHARE)
    axes.set_xlabel(what, fontsize=9)
    quiet(axes)


def _in_order(axes: Axes) -> tuple[list[Any], list[str]]:
    handles, names = axes.get_legend_handles_labels()
    return list(handles), list(names)


def _labels(result: Result, form: Form) -> bytes:
    titles = {"labels": "Judged by exact match", "labels_judged_by_probability": "Judged by probability"}
    sections = {name: result.figures[name] for name in titles if name in result.figures}
    others = sorted({n for s in sections.values() for n in s["captured"] if n not in (_DEFAULT, _EXACT)})
    picture = [
        Panel(titles[name], [_label_row(section, label) for label in (_EXACT, *others)], "share of the oracle's gain")
        for name, section in sections.items()
    ]
    return forest(
        [picture],
        title="Which labels to learn from",
        note=_about(result, result.figures["labels"], width=10.0),
        form=form,
        width=10.0,
        extent=Extent(bounds=_BOUNDS, lines={1.0: "oracle"}),
    )


def _label_row(section: Mapping[str, Any], label: str) -> Row:
    default = label == _EXACT
    figure = estimate(section["captured"].get(_DEFAULT if default else label))
    mark = Mark(figure, colour(_DEFAULT) if default else OTHER)
    return Row(label[:1].upper() + label[1:], [mark], figure.text(2), strong=default)


def _about(result: Result, section: Mapping[str, Any], *, width: float = 9.0) -> str:
    shares = [estimate(f) for f in section["captured"].values()]
    about = f"{section['pairs']} held-out pairs, paper's actions, {along(result.rows)}"
    return note(about, INTERVALS, beyond(shares, _BOUNDS), width=width)
