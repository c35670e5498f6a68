"""The trained selectors, and the report on how well they choose."""

# No postponed annotations here: Dagster reads the types of `context` and `config` from the annotations themselves.

from datetime import timedelta
from typing import Any

import dagster as dg

from simmerge_core.features.columns import FEATURE_VERSION
from simmerge_core.files import write_atomically, write_json
from simmerge_core.selector import SELECTOR_FORMAT
from simmerge_core.tables import PAIRWISE_FEATURES
from simmerge_pipeline.actions import action_sets
from simmerge_pipeline.asset_options import OWNERS, WHEN_ENOUGH_LABELS_ARE_NEW, WHEN_RESULTS_CHANGE
from simmerge_pipeline.contents import fingerprints
from simmerge_pipeline.pictures import pictures
from simmerge_pipeline.plain_metadata import files as listed
from simmerge_pipeline.plan_metadata import calibration_metadata
from simmerge_pipeline.progress import part, progress_of
from simmerge_pipeline.resources import CatalogResource, DataRootResource
from simmerge_pipeline.retraining import keep_trained_on, label_keys, label_news
from simmerge_pipeline.stamps import stamped
from simmerge_pipeline.training import deciding_metrics, item_sets, labelled_pairs


@dg.asset(
    deps=["pairwise_features", "merge_labels", "active_labels"],
    group_name="selection",
    kinds={"torch", "safetensors"},
    owners=OWNERS,
    tags={"stage": "selection"},
    code_version=f"2.{SELECTOR_FORMAT}.{FEATURE_VERSION}",
    automation_condition=WHEN_ENOUGH_LABELS_ARE_NEW,
    # A selector that nobody trains again while checkpoints arrive knows less and less of what it is asked.
    freshness_policy=dg.FreshnessPolicy.time_window(warn_window=timedelta(days=7), fail_window=timedelta(days=30)),
)
def selector(
    context: dg.AssetExecutionContext, catalog: CatalogResource, data: DataRootResource
) -> dg.MaterializeResult:
    """A folder per action set: the ensemble's weights as safetensors, its configuration and its training metrics.

    Each is trained on one half of the items and, for an honest comparison in both directions, once more on the other.
    The automation trains when `labels.retrain_after` of the labels are new; by hand it is always trained.
    """
    from simmerge_core.analysis import selector_folder
    from simmerge_core.selector import train, training_rows

    declared, root, progress = catalog.load(), data.root, progress_of(context)
    stamp, prints = stamped("selector", declared, root), fingerprints(root, declared)  # before anything is read
    label_ids = label_keys(root, prints)
    news = label_news(declared, root, label_ids)
    features, labels = labelled_pairs(root, prints)
    jobs = [
        (n, acts, item, k > 0)
        for n, acts in action_sets(declared).items()
        for k, item in enumerate(item_sets(declared))
    ]
    keys: dict[str, Any] = {}
    for number, (name, actions, item_set, reverse) in enumerate(jobs):
        rows = training_rows(features, labels, actions=actions, metric=deciding_metrics(declared), item_set=item_set)
        trained = train(rows, progress=part(progress, number, len(jobs)))
        trained.save(folder := selector_folder(root, name, reverse=reverse))
        keys[f"{folder.name} key"] = trained.key
        keys[f"{folder.name} rows"] = len(rows.features)
        keys.update(calibration_metadata(folder.name, trained, rows))
    keep_trained_on(root, label_ids)
    after = label_news(declared, root, label_ids).needed
    about = {"labels": news.now, "labels that were new": news.new, "new labels before the next training": after}
    return dg.MaterializeResult(metadata={**keys, **about, "dagster/uri": (root.root / "selector").as_uri(), **stamp})


@dg.asset(
    deps=["selector", "standalone_scores", "merge_labels", "plan_labels", "merge_outcomes"],
    group_name="selection",
    kinds={"json", "markdown", "matplotlib"},
    owners=OWNERS,
    tags={"stage": "analysis"},
    code_version="1",
    automation_condition=WHEN_RESULTS_CHANGE,
)
def report(context: dg.AssetExecutionContext, catalog: CatalogResource, data: DataRootResource) -> dg.MaterializeResult:
    """Every figure of the comparison, as report.json and report.md, with PNG pictures beside them."""
    from simmerge_core import analysis

    declared, root = catalog.load(), data.root
    stamp = stamped("report", declared, root)
    folder, found = root.root / "report", analysis.report(root, declared, progress=progress_of(context))
    write_json(folder / "report.json", found)
    text = analysis.render(found).markdown
    with write_atomically(folder / "report.md") as temporary:
        temporary.write_text(text, encoding="utf-8")
    figures = analysis.figures.report_figures(found, root.scan(PAIRWISE_FEATURES).collect())
    files = analysis.figures.write_figures(figures, folder)
    return dg.MaterializeResult(
        metadata={
            "report": dg.MetadataValue.md(text),
            **pictures(figures),
            "files": listed([folder / "report.json", folder / "report.md", *files]),
            "dagster/uri": folder.as_uri(),
            **stamp,
        }
    )
