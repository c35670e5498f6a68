"""Heat map of pre-merge similarity between checkpoints: weight cosine and KL divergence."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from simmerge_core.analysis.figures.style import INK, MUTED, Form, draw, label

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def similarity_heat_map(
    features: pl.DataFrame, *, title: str = "Similarity before merging", note: str = "", form: Form = "png"
) -> bytes:
    """Two checkpoints × checkpoints panels: weight cosine, and KL(row || column) as the mean over the tasks' probes.

    Parameters
    ----------
    features
        Rows of `pairwise_features` (any tasks): a, b, a_domain, b_domain, weight_cosine, kl_ab_mean. Checkpoints
        are ordered by domain, then id; pairs without features stay blank.
    form
        File format.

    Returns
    -------
    bytes
        The file.
    """
    both = pl.concat(
        [
            features.select(pl.col("a").alias("id"), pl.col("a_domain").alias("domain")),
            features.select(pl.col("b").alias("id"), pl.col("b_domain").alias("domain")),
        ]
    )
    order = both.unique().sort("domain", "id")
    ids, domains = order["id"].to_list(), order["domain"].to_list()
    place = {id: number for number, id in enumerate(ids)}
    cosine = np.full((len(ids), len(ids)), np.nan)
    divergence = np.full_like(cosine, np.nan)
    means = features.group_by("a", "b").agg(pl.col("weight_cosine").mean(), pl.col("kl_ab_mean").mean())
    for a, b, c, d in means.iter_rows():
        cosine[place[a], place[b]] = cosine[place[b], place[a]] = c
        divergence[place[a], place[b]] = d

    def paint(figure: Figure) -> None:
        from matplotlib.colors import LogNorm

        left, right = figure.subplots(1, 2)
        positive = divergence[np.isfinite(divergence) & (divergence > 0)]
        norm = LogNorm(positive.min(), positive.max()) if len(positive) and positive.min() < positive.max() else None
        image = left.imshow(cosine, cmap="viridis", interpolation="nearest")
        _bar(figure, left, image, "cosine of the weights")
        image = right.imshow(
            np.where(divergence > 0, divergence, np.nan), cmap="viridis_r", norm=norm, interpolation="nearest"
        )
        _bar(figure, right, image, "KL(row ‖ column), nat")
        for axes in (left, right):
            _domains(axes, domains)
        figure.suptitle(title, x=0.01, ha="left", fontweight="bold", fontsize=12)
        if note:
            figure.supxlabel(note, fontsize=8.5, color=MUTED)

    return draw(paint, width=9.6, height=4.2, form=form)


def _bar(figure: Figure, axes: Axes, image: Any, name: str) -> None:
    from matplotlib.colors import LogNorm
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    bar = figure.colorbar(image, ax=axes, shrink=0.82, pad=0.02)
    bar.set_label(name, fontsize=9)
    bar.outline.set_visible(False)
    if isinstance(image.norm, LogNorm):
        bar.ax.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        bar.ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        bar.ax.yaxis.set_minor_locator(NullLocator())
    bar.ax.tick_params(which="both", length=0, labelsize=8)


def _domains(axes: Axes, domains: list[str]) -> None:
    """Name each domain once and separate it from the next."""
    names = list(dict.fromkeys(domains))
    starts = [domains.index(name) for name in names]
    ends = [*starts[1:], len(domains)]
    middles = [(start + end - 1) / 2 for start, end in zip(starts, ends, strict=True)]
    for edge in starts[1:]:
        axes.axhline(edge - 0.5, color="white", linewidth=1.4)
        axes.axvline(edge - 0.5, color="white", linewidth=1.4)
    axes.set_xticks(middles, [label(name) for name in names], fontsize=8.5, rotation=30, ha="right")
    axes.set_yticks(middles, [label(name) for name in names], fontsize=8.5)
    axes.tick_params(length=0, labelcolor=INK)
    for spine in axes.spines.values():
        spine.set_visible(False)
