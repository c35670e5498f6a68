"""Judging a policy on a bandit's log before it goes live."""

from __future__ import annotations

import numpy as np

from simmerge_core.bandit.context import Context
from simmerge_core.bandit.off_policy import (
    Estimate,
    LoggedRounds,
    compare,
    evaluate_policy,
    greedy_probabilities,
    target_probabilities,
)
from simmerge_core.bandit.online import OnlineBandit
from simmerge_core.bandit.policies import POLICIES, LinearBandit
from simmerge_core.errors import BanditError

GREEDY = "greedy"


def judge(
    online: OnlineBandit,
    policy: str,
    *,
    exploration: float | None = None,
    mixing: float | None = None,
    against: str | None = None,
    clip: float | None = None,
) -> tuple[Estimate, ...]:
    """What a policy would have earned on the logged rounds, by every estimator of `off_policy`.

    A round is one step of a plan, judged by the reward of that step: checkpoints, order and the steps before it are as
    they were logged. What a policy would have made of a whole plan, had it chosen every step, is another question.

    The policy is as it was before the first round: warm-started, with the arms and tasks that joined since, and it
    learns nothing. Its posterior is the reward model of the doubly robust estimators, which no logged round has
    touched. Steps of one merge request count as one observation for the intervals.

    Parameters
    ----------
    policy
        A name in `POLICIES`, ``greedy`` (the best posterior mean), or an arm (always that one).
    exploration, mixing
        Of the policy; those of the bandit by default.
    against
        A second policy: the difference to it is given instead, from the same rounds.
    clip
        As in `evaluate_policy`.

    Raises
    ------
    BanditError
        If the policy is unknown or fewer than two rounds have a reward.
    """
    state, log = online.durable.state, online.durable.rounds().drop_nulls("reward")
    warm = warm_state(online)
    contexts = [
        Context(np.array(z), source, tuple(zip(tasks, weights, strict=True)))
        for z, source, tasks, weights in log.select("z", "source", "tasks", "task_weights").iter_rows()
    ]
    if len(contexts) < 2:
        raise BanditError(
            f"Bandit {online.name} has {len(contexts)} rounds with a reward, and a policy is judged on at least 2: "
            "materialize merge requests of this bandit first."
        )
    known = [dict(zip(arms, shares, strict=True)) for arms, shares in log.select("arms", "probabilities").iter_rows()]
    rounds = LoggedRounds(
        np.stack([warm.checked(context).z for context in contexts]),
        np.array([state.number(arm) for arm in log["arm"]]),
        log["reward"].to_numpy(),
        log["propensity"].to_numpy(),
        np.array([[shares.get(arm, 0.0) for arm in state.arms] for shares in known]),
    )

    def probabilities(name: str) -> np.ndarray:
        return _probabilities(warm, name, contexts, exploration=exploration, mixing=mixing)

    requests = log["request"].to_numpy()
    groups = np.where(requests == "", log["round_id"].to_numpy(), requests)
    if against is not None:
        return compare(rounds, probabilities(policy), probabilities(against), warm.posterior, groups=groups, clip=clip)
    return evaluate_policy(rounds, probabilities(policy), warm.posterior, groups=groups, clip=clip)


def warm_state(online: OnlineBandit) -> LinearBandit:
    """The bandit as it was before the first round, with the arms and tasks of today."""
    state, warm = online.durable.state, LinearBandit.load(online.folder / "warm")
    for task in state.tasks:
        warm.add_task(task)
    for arm in state.arms[len(warm.arms) :]:
        warm.add_arm(arm)
    warm.retired = set(state.retired)
    return warm


def _probabilities(
    warm: LinearBandit, name: str, contexts: list[Context], *, exploration: float | None, mixing: float | None
) -> np.ndarray:
    if name in warm.arms:
        return np.tile(np.array([float(arm == name) for arm in warm.arms]), (len(contexts), 1))
    if name == GREEDY:
        closed = np.array([arm in warm.retired for arm in warm.arms])
        return greedy_probabilities(np.where(closed, -np.inf, [warm.predict(context)[0] for context in contexts]))
    if name not in POLICIES:
        raise BanditError(
            f"There is no policy {name!r}: choose among {', '.join((*POLICIES, GREEDY))}, or an arm: "
            f"{', '.join(warm.arms)}."
        )
    target = POLICIES[name](
        warm.arms,
        warm.dimension,
        exploration=warm.exploration if exploration is None else exploration,
        regularisation=warm.regularisation,
        mixing=warm.mixing if mixing is None else mixing,
        reward_range=warm.reward_range,
        source=warm.source,
        posterior=warm.posterior,
    )
    target.retired = set(warm.retired)
    return target_probabilities(target, contexts)
