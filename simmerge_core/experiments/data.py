"""What experiments read: the tables of a data root, its catalog, the store of evaluations, trained models."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import polars as pl

from simmerge_core.analysis.protocol import Direction, directions
from simmerge_core.analysis.scores import Standalone, counted_metrics, item_sets_of, standalone
from simmerge_core.analysis.units import Target, Units, build_units
from simmerge_core.catalog import Catalog
from simmerge_core.errors import SelectionError, TableError
from simmerge_core.experiments.protocol import Least, Protocol, protocol
from simmerge_core.files import hash_json
from simmerge_core.plans import Plan
from simmerge_core.selector.config import SelectorConfig
from simmerge_core.storage import Location
from simmerge_core.tables import (
    CHECKPOINTS,
    MERGE_LABELS,
    PAIRWISE_FEATURES,
    PLAN_LABELS,
    STANDALONE_SCORES,
    WEIGHT_GRAM,
    DataRoot,
)

if TYPE_CHECKING:
    from simmerge_core.evaluation import EvaluationStore
    from simmerge_core.selector import Selector, TrainingRows

Progress = Callable[[str, float], None]


def silent(message: str, fraction: float) -> None:
    """Progress that nobody watches."""


def part_of(progress: Progress, name: str, number: int, parts: int) -> Progress:
    """Progress of one of several equal parts, its messages led by its name."""

    def tell(message: str, fraction: float) -> None:
        progress(f"{name}: {message}" if message else name, (number + fraction) / parts)

    return tell


@dataclass(frozen=True)
class ExperimentData:
    """The tables of one catalog, read once, without rows of replaced checkpoints.

    Attributes
    ----------
    labels, scores, features, plan_labels
        Tables `merge_labels`, `standalone_scores`, `pairwise_features` (each pair once per task) and `plan_labels`,
        with their partition columns.
    counted
        Which metric of each benchmark decides (`analysis.scores.counted_metrics`).
    fingerprints
        Content hash by checkpoint, base included.
    parameters
        Of the base.
    workers
        Processes that train, merge and score what an experiment still needs.
    settings
        Of every selector, where an experiment does not vary them.
    """

    catalog: Catalog
    root: DataRoot
    labels: pl.DataFrame
    scores: pl.DataFrame
    features: pl.DataFrame
    plan_labels: pl.DataFrame
    counted: pl.DataFrame
    fingerprints: Mapping[str, str]
    parameters: int
    protocol: Protocol
    workers: int = 2
    settings: SelectorConfig = field(default_factory=SelectorConfig)
    _models: dict[str, Any] = field(default_factory=dict, repr=False, compare=False)

    @property
    def along(self) -> tuple[Direction, ...]:
        """Choose on A and score on B, and the reverse."""
        return directions(item_sets_of(self.catalog), both=True)

    @cached_property
    def alone(self) -> Standalone:
        """Score of each unmerged model by (checkpoint, task, item set)."""
        return standalone(self.scores, counted=self.counted)

    @property
    def store(self) -> EvaluationStore:
        """The content-addressed store of this data root."""
        from simmerge_core.evaluation import EvaluationStore

        return EvaluationStore(self.root.root / "evaluations")

    @cached_property
    def stamp(self) -> str:
        """Hash of every table row that an experiment may read, of the protocol, and of what selectors are made of."""
        from simmerge_core.selector import SELECTOR_FORMAT

        gram = self.root.scan(WEIGHT_GRAM).collect()
        tables = (self.labels, self.scores, self.features, self.plan_labels, gram, self.counted)
        parts = [
            str(int(t.select(sorted(t.columns)).hash_rows(seed=0).sort().hash(seed=1).sum() or 0)) if t.height else ""
            for t in tables
        ]
        selectors = {"format": SELECTOR_FORMAT, "settings": self.settings.as_json()}
        declared = self.catalog.model_dump(mode="json", include={"action_sets", "labels"})
        del declared["labels"]["daily_merges"]  # what is labelled by and by is not the design
        rules = self.protocol.model_dump(mode="json", exclude={"bandit"})  # which is part of its own stamp
        what = {"tables": parts, "protocol": rules, "selectors": selectors, "domains": dict(self.catalog.domains)}
        return hash_json({**what, "catalog": declared, "fingerprints": dict(self.fingerprints)})

    def extent(self) -> Least:
        """How much of the catalog is labelled: pairs of expert and auxiliary, and designed configurations."""
        from simmerge_core.analysis.protocol import TRAINING_SPLITS
        from simmerge_core.labels import designed_configurations

        split = self.units("paper", "expert_task").split.tolist()
        sizes = [len(members) for _, members in designed_configurations(self.catalog, sorted(self.fingerprints))]
        return Least(
            training_pairs=sum(s in TRAINING_SPLITS for s in split),
            test_pairs=split.count("test"),
            three_way=sizes.count(3),
            four_way=sizes.count(4),
        )

    def units(self, actions: str | Sequence[str], target: Target) -> Units:
        """Labelled pairs as arrays, for a named action set or the given actions."""
        texts = tuple(map(str, self.catalog.actions(actions))) if isinstance(actions, str) else tuple(actions)
        return build_units(
            self.labels,
            self.scores,
            actions=texts,
            domains=self.catalog.domains,
            base=self.catalog.base.id,
            counted=self.counted,
            item_sets=item_sets_of(self.catalog),
            target=target,
        )

    def rows(self, actions: Sequence[str], direction: Direction, *, blend: float = 0.0) -> TrainingRows:
        """Training rows with the labels of the items that the direction chooses on; `blend` as in `training_rows`."""
        from simmerge_core.selector import training_rows

        metric = dict(self.counted.select("benchmark", "metric").iter_rows())
        return training_rows(
            self.features, self.labels, actions=actions, metric=metric, item_set=direction.chosen_on, blend=blend
        )

    def selector(
        self, rows: TrainingRows, progress: Progress = silent, *, config: SelectorConfig | None = None
    ) -> Selector:
        """The selector trained on these rows, with `settings` unless told otherwise.

        It is kept on disk, so that nothing is trained twice.
        """
        from simmerge_core.selector import Selector, train

        config = config or self.settings
        key = self._model_key(rows, config)
        if key not in self._models:
            folder = self._models_folder / key
            try:
                self._models[key] = Selector.load(folder)
            except SelectionError:
                self._models[key] = train(rows, config=config, seed=self.protocol.choices.seed, progress=progress)
                self._models[key].save(folder)
        return self._models[key]

    def train_ahead(
        self, jobs: Sequence[tuple[TrainingRows, SelectorConfig | None]], progress: Progress = silent
    ) -> None:
        """Train the selectors that will be asked for and are not on disk yet, several at a time.

        A selector's bytes do not depend on the process that trains it, nor on how many there are.
        """
        from simmerge_core.experiments.training import train_into

        missing = {self._model_key(rows, c): (rows, c) for rows, config in jobs for c in (config or self.settings,)}
        missing = {k: job for k, job in missing.items() if not (self._models_folder / k / "config.json").is_file()}
        work = [(self._models_folder / key, *job, self.protocol.choices.seed) for key, job in missing.items()]
        train_into(work, workers=self.workers, progress=progress)

    @property
    def _models_folder(self) -> Location:
        return self.root.root / "experiments" / "models"

    def _model_key(self, rows: TrainingRows, config: SelectorConfig) -> str:
        seed = self.protocol.choices.seed
        from simmerge_core.selector import SELECTOR_FORMAT

        what = {"format": SELECTOR_FORMAT, "rows": rows.fingerprint, "seed": seed, "config": config.as_json()}
        return hash_json(what)[:40]

    def execute(self, plans: Sequence[tuple[Plan, str]], progress: Progress = silent) -> pl.DataFrame:
        """Scores of (plan, task) requests, rows as in `plan_labels`: from the store, else merged and evaluated now."""
        from simmerge_core.labels import label_plans

        return label_plans(
            plans,
            self.catalog,
            store=self.store,
            fingerprints=self.fingerprints,
            workers=self.workers,
            progress=progress,
        )


def load_data(data: Location, catalog: Catalog, *, workers: int = 2, checked: bool = True) -> ExperimentData:
    """Read the tables of a data root.

    Parameters
    ----------
    checked
        Refuse a catalog whose splits or extent are not those of the protocol.

    Raises
    ------
    TableError
        If the tables that every experiment needs are not there.
    SelectionError
        If the splits differ, or too little is labelled.
    """
    rules = protocol()
    if checked:
        rules.check(catalog)
    root = DataRoot(data)
    for table in (CHECKPOINTS, PAIRWISE_FEATURES, MERGE_LABELS, STANDALONE_SCORES):
        if not root.partitions(table):
            raise TableError(
                f"Table {table.name} is not there under {data}: materialize it first, for example by "
                f"`simmerge demo --preset {rules.catalog.preset}`."
            )
    sizes = root.scan(CHECKPOINTS).select("checkpoint", "fingerprint", "parameters").collect()
    declared = {catalog.base.id, *catalog.checkpoint_ids}
    absent = sorted(declared - set(sizes["checkpoint"].to_list()))
    if absent:
        raise TableError(
            f"Checkpoint {absent[0]!r} of {catalog.path} has no row in table checkpoints under {data}: materialize "
            "it, or name the data root of this catalog."
        )
    manifests = sizes.drop("parameters").filter(pl.col("checkpoint").is_in(sorted(declared)))

    def present(frame: pl.DataFrame, *sides: str) -> pl.DataFrame:
        for side in sides:
            print_column = "fingerprint" if side == "checkpoint" else f"{side}_fingerprint"
            known = manifests.rename({"checkpoint": side, "fingerprint": print_column})
            frame = frame.join(known, on=[side, print_column], how="semi", maintain_order="left")
        return frame

    features = present(root.scan(PAIRWISE_FEATURES).collect(), "a", "b")
    found = ExperimentData(
        catalog=catalog,
        root=root,
        labels=present(root.scan(MERGE_LABELS).collect(), "a", "b"),
        scores=present(root.scan(STANDALONE_SCORES).collect(), "checkpoint"),
        features=features.unique(["task", "a", "b"], keep="first", maintain_order=True),
        plan_labels=root.scan(PLAN_LABELS).collect(),
        counted=counted_metrics(catalog),
        fingerprints=dict(manifests.rows()),
        parameters=sizes.filter(pl.col("checkpoint") == catalog.base.id)["parameters"].to_list()[0],
        protocol=rules,
        workers=workers,
    )
    if checked:
        rules.check_extent(found.extent())
    return found
