"""What the bandit's assets ask of `simmerge_core.bandit`: which bandits there are, their plans, and their rewards."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING, Any

import polars as pl

from simmerge_core.analysis.scores import counted_metrics, task_scores
from simmerge_core.catalog import Catalog, MergeRequest
from simmerge_core.errors import BanditError, SelectionError
from simmerge_core.labels.pairs import DESIGN_SCHEMA
from simmerge_core.plans import Plan
from simmerge_core.tables import ACTIVE_LABELS, BANDIT_ROUNDS, DataRoot
from simmerge_pipeline.progress import Progress
from simmerge_pipeline.training import deciding_metrics, item_sets, labelled_pairs

if TYPE_CHECKING:
    from simmerge_core.bandit import OnlineBandit
    from simmerge_core.planning import Target
    from simmerge_core.selector import TrainingRows


def wanted_bandits(catalog: Catalog) -> dict[str, tuple[str, str]]:
    """Action set and policy by name of every bandit that a merge request asks."""
    from simmerge_core.bandit import bandit_name

    asked = sorted({(r.actions, r.policy) for r in catalog.merge_requests if r.policy != "selector"})
    return {bandit_name(actions, policy): (actions, policy) for actions, policy in asked}


def ready_bandit(
    catalog: Catalog, root: DataRoot, prints: Mapping[str, str], actions: str, policy: str, progress: Progress
) -> tuple[OnlineBandit, list[str]]:
    """The bandit of an action set and policy, with what the catalog now declares, and what that changed in words.

    Where there is none it is started, on the labels that are there.
    """
    from simmerge_core.bandit import OnlineBandit, bandit_folder, bandit_name, is_started, warm_start

    folder = bandit_folder(root, bandit_name(actions, policy))
    if is_started(folder):
        online = OnlineBandit.open(folder)
    else:
        rows = _warm_rows(catalog, root, prints, actions)
        online = OnlineBandit.start(
            folder, warm_start(rows, policy=policy, progress=progress, **catalog.bandit.model_dump())
        )
    return online, online.follow_catalog([str(a) for a in catalog.actions(actions)], catalog.task_ids)


def drop_unused(catalog: Catalog, root: DataRoot, prints: Mapping[str, str], actions: str, policy: str) -> None:
    """Remove a bandit that has chosen nothing and was started on other labels: the next start is on those of today."""
    from simmerge_core.bandit import OnlineBandit, bandit_folder, bandit_name, drop, is_started

    folder = bandit_folder(root, bandit_name(actions, policy))
    if not is_started(folder):
        return
    online = OnlineBandit.open(folder)
    if online.durable.rounds().height:
        return
    try:
        known = _warm_rows(catalog, root, prints, actions).of_split("train", "validation")
    except SelectionError:
        return  # an operator that has no labels yet joins the one there is
    if online.encoder.training_fingerprint != known.fingerprint:
        drop(folder)


def bandit_source(root: DataRoot, name: str) -> str | None:
    """Key of a bandit's encoder, which tells one start from another; None where there is no bandit."""
    from simmerge_core.bandit import DurableBandit, bandit_folder, is_started

    folder = bandit_folder(root, name)
    return DurableBandit.open(folder).source if is_started(folder) else None


def _warm_rows(catalog: Catalog, root: DataRoot, prints: Mapping[str, str], actions: str) -> TrainingRows:
    """Labels on all item sets, since a round's reward is the mean over all of them, too."""
    from simmerge_core.selector import training_rows

    features, labels = labelled_pairs(root, prints)
    metric, sets = deciding_metrics(catalog), item_sets(catalog)
    return training_rows(features, labels, actions=catalog.actions(actions), metric=metric, item_set=sets)


def opened_bandit(root: DataRoot, request: MergeRequest) -> OnlineBandit:
    """The bandit that a request was chosen by; raises BanditError if it was not started."""
    from simmerge_core.bandit import OnlineBandit, bandit_folder, bandit_name

    return OnlineBandit.open(bandit_folder(root, bandit_name(request.actions, request.policy)))


def day_so_far(root: DataRoot, day: str) -> pl.DataFrame:
    """Rows of `active_labels` that a day already has."""
    there = root.exists(ACTIVE_LABELS, day=day)
    return root.read(ACTIVE_LABELS, day=day).drop("day") if there else ACTIVE_LABELS.empty()


def merges_of(rows: pl.DataFrame) -> int:
    """Merges behind rows of `active_labels`: one serves all its tasks."""
    return rows.select("a", "b", "action").n_unique() if rows.height else 0


def not_over(day: str) -> bool:
    """Whether a day may still spend: today or yesterday, UTC, since a night's run may begin after midnight."""
    return date.fromisoformat(day) >= datetime.now(UTC).date() - timedelta(days=1)


def pairs_worth_labelling(
    catalog: Catalog, root: DataRoot, prints: Mapping[str, str], actions: Sequence[str], *, budget: int
) -> tuple[pl.DataFrame, list[str]]:
    """Pairs for a day's budget, rows as `labels.design` gives them, and each with its information and cost in words.

    What is known of the actions is a warm start on the labels that are there.
    """
    from simmerge_core.bandit.labelling import informative_pairs, unlabelled
    from simmerge_core.bandit.warming import DEFAULTS, warm_start
    from simmerge_core.selector import training_rows

    if budget < 1:
        return pl.DataFrame(schema=DESIGN_SCHEMA), []
    features, labels = labelled_pairs(root, prints)
    rows = training_rows(
        features, labels, actions=actions, metric=deciding_metrics(catalog), item_set=item_sets(catalog)
    )
    given = {**asdict(DEFAULTS), **{k: v for k, v in catalog.bandit.model_dump().items() if v is not None}}
    known = warm_start(rows, **given)
    pairs, picks = informative_pairs(
        catalog,
        features,
        unlabelled(catalog, features, labels, actions),
        known.encoder,
        known.bandit.posterior,
        budget=budget,
        label_weight=float(given["label_weight"]),
    )
    return pairs, [f"{pick.group}: {pick.gain:.2f} nats for {pick.cost:.0f} merges" for pick in picks]


def asked_of(request: MergeRequest, target: Target) -> dict[str, Any]:
    """What a request's rounds depend on; how it is written, and how many plans it lists, does not matter."""
    pool = "all" if request.checkpoints == "all" else sorted(request.checkpoints)
    weights = dict(zip(target.tasks, target.weights, strict=True))
    return {"checkpoints": pool, "k": request.k, "target": weights, "actions": request.actions}


def plans_by_bandit(
    online: OnlineBandit,
    request: MergeRequest,
    features: pl.DataFrame,
    pool: Sequence[str],
    target: Target,
    progress: Progress,
) -> pl.DataFrame:
    """Ranked plans (table `merge_plans`) whose first is the bandit's: its order by search, its operators by rounds.

    The order is that of the best plan under the posterior mean when the request was begun. Plans behind the first
    are ranked by the posterior mean as it is now.
    """
    from simmerge_core.bandit import expected
    from simmerge_core.planning import pair_table, search

    model = online.model
    ranked = search(model, features, pool, target, k=request.k, top=request.top, progress=progress)
    order = online.begin(request.id, asked_of(request, target), ranked.row(0, named=True)["order"])
    plan = online.choose_plan(request.id, features, target, order)
    table = pair_table(features, checkpoints=order, tasks=target.tasks, feature_names=model.feature_names)
    steps = expected(online.encoder, online.durable.state, table, target, plan)
    chosen = ranked.head(1).with_columns(
        order=pl.Series([list(plan.checkpoints)], dtype=pl.List(pl.String)),
        actions=pl.Series([[str(a) for a in plan.actions]], dtype=pl.List(pl.String)),
        predicted_utility=pl.lit(steps[-1][0]),
        uncertainty=pl.lit(steps[-1][1]),
        step_utilities=pl.Series([[mean for mean, _ in steps]], dtype=pl.List(pl.Float64)),
        step_uncertainties=pl.Series([[deviation for _, deviation in steps]], dtype=pl.List(pl.Float64)),
    )
    same = (pl.col("order") == list(plan.checkpoints)) & (pl.col("actions") == [str(a) for a in plan.actions])
    both = pl.concat([chosen, ranked.filter(~same)]).head(request.top)
    rank = pl.int_range(1, both.height + 1, dtype=pl.Int64)
    return both.with_columns(rank=rank, selector_key=pl.lit(online.durable.state.key))


def drawn(online: OnlineBandit, request: str) -> dict[str, Any]:
    """What was drawn for each step of a request, as metadata."""
    rows = online.durable.rounds().filter(pl.col("request") == request).sort("step")
    return {
        f"step {step}": f"{arm}, chosen with probability {propensity:.3f}"
        for step, arm, propensity in rows.select("step", "arm", "propensity").iter_rows()
    }


def learned_rounds(
    online: OnlineBandit,
    catalog: Catalog,
    request: MergeRequest,
    plan: Plan,
    outcomes: pl.DataFrame,
) -> pl.DataFrame:
    """Tell a bandit what its plan's steps were worth; rows of table `bandit_rounds`.

    Raises
    ------
    BanditError
        If the plan is not the one that the bandit drew, a step has no score, or a score is out of range.
    """
    from simmerge_core.planning import target_of

    target = target_of(request.targets, combine=request.how, weights=request.weights)
    if online.drawn_plan(request.id, catalog.domains, target, plan.checkpoints) != plan:
        raise BanditError(
            f"The plan of merge request {request.id!r} is not the one that bandit {online.name} drew: materialize "
            "merge_plans, merged_checkpoints and merge_outcomes of this request again."
        )
    rewards = _rewards(catalog, request, plan, outcomes, dict(zip(target.tasks, target.weights, strict=True)))
    online.learn(request.id, rewards)
    rounds = online.durable.rounds().filter(pl.col("request") == request.id).sort("step")
    about = pl.DataFrame(
        {
            "step": pl.Series(range(1, plan.k), dtype=pl.Int64),
            "merged": [list(plan.checkpoints[: step + 1]) for step in range(1, plan.k)],
            "action": [str(action) for action in plan.actions],
        }
    )
    told = rounds.with_columns(pl.col("step").cast(pl.Int64)).join(about, on="step", maintain_order="left")
    return told.with_columns(bandit=pl.lit(online.name), task=pl.lit(str(target))).select(BANDIT_ROUNDS.schema.keys())


def _rewards(
    catalog: Catalog, request: MergeRequest, plan: Plan, outcomes: pl.DataFrame, weights: Mapping[str, float]
) -> list[tuple[float, str]]:
    """Utility on the target after each step, mean over item sets, with the keys of the evaluations."""
    sets = item_sets(catalog)  # as in the labels of the warm start
    scores = task_scores(outcomes, by=["model"], counted=counted_metrics(catalog))
    scores = scores.filter(pl.col("item_set").is_in(sets))
    means = scores.group_by("model", "task").agg(pl.mean("utility"), pl.col("item_set").n_unique().alias("sets"))
    utility = {(m, t): u for m, t, u, n in means.iter_rows() if n == len(sets)}
    keys = {(m, t): key for m, t, key in outcomes.select("model", "task", "evaluation_key").unique().iter_rows()}
    rewards = []
    for k in range(2, plan.k + 1):
        model = str(Plan(plan.checkpoints[:k], plan.actions[: k - 1]))
        missing = [task for task in weights if (model, task) not in utility]
        if missing:
            raise BanditError(
                f"Step {k - 1} of merge request {request.id!r} lacks scores on task {missing[0]!r}: materialize "
                "merge_outcomes of this request again."
            )
        reward = sum(weight * utility[model, task] for task, weight in weights.items())
        rewards.append((float(reward), "+".join(keys[model, task] for task in weights)))
    return rewards
