"""Figures of the report: each takes frames or plain values and returns PNG bytes; equal input gives equal bytes."""

from simmerge_core.analysis.figures.bars import gap_closed_bars
from simmerge_core.analysis.figures.confusion import confusion_matrix
from simmerge_core.analysis.figures.deltas import delta_markers, merge_size_lines
from simmerge_core.analysis.figures.from_report import per_task_frame, report_figures, write_figures
from simmerge_core.analysis.figures.narrowed import narrowed
from simmerge_core.analysis.figures.rounds import bandit_rounds
from simmerge_core.analysis.figures.similarity import similarity_heat_map

__all__ = [
    "bandit_rounds",
    "confusion_matrix",
    "delta_markers",
    "gap_closed_bars",
    "merge_size_lines",
    "narrowed",
    "per_task_frame",
    "report_figures",
    "similarity_heat_map",
    "write_figures",
]
