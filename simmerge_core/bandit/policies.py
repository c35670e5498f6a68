"""Policies over arms with linear rewards: LinTS (the paper's), LinUCB, and uniform choice (§2.4, §4.5)."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Self

import numpy as np

from simmerge_core.bandit.context import Context
from simmerge_core.bandit.levels import TaskLevel, level_of
from simmerge_core.bandit.posterior import Posterior
from simmerge_core.bandit.propensity import probability_of_best
from simmerge_core.bandit.saving import load_bandit, save_bandit, state_key
from simmerge_core.errors import BanditError
from simmerge_core.storage import Location

_TIE = 1e-12
_LARGEST = 1e50  # fourth powers of coordinates are formed, and may not overflow


TRIALS, TRIAL_SHARE = 10, 0.2
"""Rewards that an arm which joins is to have before it is chosen like the others, and the share of rounds till then."""


@dataclass(frozen=True, slots=True)
class Choice:
    """One decision.

    Attributes
    ----------
    round_id
        Of the round; its draw depends on it.
    arm
        What was chosen.
    propensity
        Probability with which the policy chooses this arm at this context.
    draw_seed
        Key of the random numbers, 32 hexadecimal digits: from the bandit's seed and the round's id.
    probabilities
        (K,) probability of every arm, zero for retired ones.
    """

    round_id: str
    arm: str
    propensity: float
    draw_seed: str
    probabilities: np.ndarray


class LinearBandit:
    """Chooses among arms whose expected reward is linear in the context, and learns from the reward of the chosen one.

    Parameters
    ----------
    arms
        Names, each once.
    dimension
        Coordinates of a context.
    exploration
        Standard deviations that a draw (LinTS) or bound (LinUCB) spans, in units of a reward: the v of Agrawal & Goyal
        (2013), the α of Li et al. (2010). At least 0.
    regularisation
        λ > 0 of the prior.
    seed
        Of every draw; a draw depends on it and on the round's id alone.
    mixing
        Share of rounds that choose uniformly, so that every arm has some propensity; in [0, 1].
    reward_range
        Least and greatest reward.
    source
        Key of the encoder whose contexts it takes; empty takes plain vectors.
    posterior
        What is known already; otherwise the prior with mean zero.
    """

    kind: ClassVar[str]

    def __init__(
        self,
        arms: Sequence[str],
        dimension: int,
        *,
        exploration: float = 0.1,
        regularisation: float = 1.0,
        seed: int = 0,
        mixing: float = 0.0,
        reward_range: tuple[float, float] = (0.0, 1.0),
        source: str = "",
        posterior: Posterior | None = None,
    ) -> None:
        names = [str(arm) for arm in arms]
        if not names or len(set(names)) != len(names):
            raise BanditError(f"The arms {names} must be at least one, each named once.")
        if dimension < 1:
            raise BanditError(f"A context of {dimension} coordinates says nothing: give at least one.")
        if not (math.isfinite(exploration) and exploration >= 0.0):
            raise BanditError(f"The exploration {exploration:g} is no scale: give a number of at least 0.")
        if not (math.isfinite(regularisation) and regularisation > 0.0):
            raise BanditError(f"The regularisation {regularisation:g} gives no prior: give a positive number.")
        if not 0.0 <= mixing <= 1.0:
            raise BanditError(f"The mixing {mixing:g} is no share: give a number from 0 to 1.")
        if not (reward_range[0] < reward_range[1] and all(map(math.isfinite, reward_range))):
            raise BanditError(f"The reward range {reward_range} is none: give the least and the greatest reward.")
        self.arms: list[str] = names
        self.retired: set[str] = set()
        self.levels: dict[str, TaskLevel] = {}
        self.trials: dict[str, int] = {}
        self.exploration, self.regularisation = float(exploration), float(regularisation)
        self.seed, self.mixing, self.source = int(seed), float(mixing), source
        self.reward_range = (float(reward_range[0]), float(reward_range[1]))
        self.posterior = posterior or Posterior.prior(len(names), dimension, regularisation=regularisation)
        if (self.posterior.arms, self.posterior.dimension) != (len(names), dimension):
            raise BanditError("The posterior is of other arms or coordinates: give one of the bandit's own shape.")
        self.selected = 0

    @property
    def dimension(self) -> int:
        """Coordinates of a context."""
        return self.posterior.dimension

    @property
    def tasks(self) -> tuple[str, ...]:
        """Tasks that joined, in order."""
        return tuple(self.levels)

    @property
    def on_trial(self) -> tuple[str, ...]:
        """Arms that joined and have not been tried `TRIALS` times: together they have `TRIAL_SHARE` of the rounds."""
        return tuple(arm for arm in self.trials if arm not in self.retired)

    @property
    def active(self) -> tuple[str, ...]:
        """Arms that may be chosen."""
        return tuple(arm for arm in self.arms if arm not in self.retired)

    def checked(self, context: Context | np.ndarray) -> Context:
        """The context, if it can be used.

        Raises
        ------
        BanditError
            If it is of another encoder or length, or not finite.
        """
        context = context if isinstance(context, Context) else Context(context)
        if context.source != self.source:
            raise BanditError(
                f"The context was made by encoder {context.source[:12] or '(none)'}, and this bandit takes those of "
                f"{self.source[:12] or '(none)'}: features of another version mean something else; encode it again "
                "with the bandit's own encoder, or start a new bandit."
            )
        if context.z.shape != (self.dimension,):
            raise BanditError(f"The context has shape {context.z.shape}, and this bandit takes ({self.dimension},).")
        numbers = np.concatenate([context.z, [weight for _, weight in context.tasks]])
        if not (np.abs(numbers) < _LARGEST).all():  # NaN is not either
            raise BanditError("The context holds a number that is not finite or too large: compute its features again.")
        return context

    def predict(self, context: Context | np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(K,) posterior mean of each arm's reward, and (K,) its deviation in units of the noise."""
        context = self.checked(context)
        mean, deviation = self.posterior.predict(context.z)
        return mean + level_of(self.levels, context.tasks), deviation

    def probabilities(self, context: Context | np.ndarray) -> np.ndarray:
        """(K,) probability of each arm; zero for retired ones."""
        mean, deviation = self.predict(context)
        return self._mixed(mean, self.exploration * deviation)

    def select(self, context: Context | np.ndarray, *, round_id: str | None = None) -> Choice:
        """Choose an arm; nothing is learned.

        Parameters
        ----------
        round_id
            Decides the draw; by default the number of the call.
        """
        mean, deviation = self.predict(context)
        deviation = self.exploration * deviation
        if round_id is None:  # only now: a context that is refused is no round
            round_id, self.selected = f"select-{self.selected}", self.selected + 1
        key = self._key(round_id)
        chosen = self._drawn(mean, deviation, key)
        probabilities = self._mixed(mean, deviation)
        return Choice(round_id, self.arms[chosen], float(probabilities[chosen]), key, probabilities)

    def draw(self, context: Context | np.ndarray, *, round_id: str) -> int:
        """Number of the arm that `select` would choose, without its propensity: for simulations of many rounds."""
        mean, deviation = self.predict(context)
        return self._drawn(mean, self.exploration * deviation, self._key(round_id))

    def _key(self, round_id: str) -> str:
        return hashlib.sha256(f"{self.seed}|{round_id}".encode()).hexdigest()[:32]

    def _drawn(self, mean: np.ndarray, deviation: np.ndarray, key: str) -> int:
        numbers = np.random.Generator(np.random.Philox(key=int(key, 16)))
        share, place = numbers.random(2)
        open_arms = np.flatnonzero(self._open())
        if share < self.mixing:
            return int(open_arms[int(place * len(open_arms))])
        trial = [self.arms.index(arm) for arm in self.on_trial]
        if trial and share < self.mixing + (1.0 - self.mixing) * TRIAL_SHARE:
            return trial[int(place * len(trial))]
        return int(open_arms[self._pick(mean[open_arms], deviation[open_arms], numbers, open_arms)])

    def update(self, context: Context | np.ndarray, arm: str, reward: float) -> None:
        """Learn from the reward of the arm that was chosen; of the arms, only its posterior moves (§2.4).

        What a task that joined adds to every arm's reward is learned first, and taken off what the arm learns. An arm
        that was retired meanwhile learns too: its round was begun before.

        Raises
        ------
        BanditError
            If the arm is unknown, or the reward is not finite or out of range; nothing has changed then.
        """
        context, number = self.checked(context), self.number(arm)
        value = self.checked_reward(arm, reward)
        joined = [(task, weight) for task, weight in context.tasks if task in self.levels]
        if joined:
            surprise = value - float(self.predict(context)[0][number])
            for task, weight in joined:
                self.levels[task] = self.levels[task].learned(surprise, weight)
        self.posterior.update(number, context.z, value - level_of(self.levels, joined))
        if arm in self.trials:
            self.trials[arm] -= 1
            if not self.trials[arm]:
                del self.trials[arm]

    def number(self, arm: str) -> int:
        """Position of an arm.

        Raises
        ------
        BanditError
            Naming those that exist.
        """
        if arm not in self.arms:
            raise BanditError(f"There is no arm {arm!r}: choose among {', '.join(self.arms)}, or add it first.")
        return self.arms.index(arm)

    def checked_reward(self, arm: str, reward: float) -> float:
        """The reward as a float, refused where it is no number of the range."""
        low, high = self.reward_range
        try:
            value = float(reward)
        except (TypeError, ValueError, OverflowError) as error:
            raise BanditError(
                f"The reward {reward!r} of arm {arm!r} is no number: evaluate the merge again."
            ) from error
        if not low <= value <= high:  # NaN is in no range
            raise BanditError(
                f"The reward {value!r} of arm {arm!r} lies outside [{low:g}, {high:g}]: evaluate the merge again, or "
                "declare the range of the task's metric."
            )
        return value

    def add_arm(self, arm: str) -> None:
        """A new arm, or a retired one again.

        Its prior mean is the mean over the arms there are, so that it begins at the level of rewards that they have
        shown. A bandit that was tuned to trust its labels would hardly ever draw an arm that has none, so a new one is
        on trial first: a fixed share of rounds goes to it until it has been rewarded often enough to speak for itself.
        """
        if arm in self.arms:
            if arm not in self.retired:
                raise BanditError(f"Arm {arm!r} is there already: a retired one can be added again, this one cannot.")
            self.retired.discard(arm)
            return
        mean = self.posterior.mean.mean(axis=0)
        self.posterior = self.posterior.with_arm(regularisation=self.regularisation, mean=mean)
        self.arms.append(arm)
        self.trials[arm] = TRIALS

    def retire_arm(self, arm: str) -> None:
        """Never choose an arm again; what it has learned is kept.

        Raises
        ------
        BanditError
            If it is unknown, retired already, or the last one.
        """
        self.number(arm)
        if arm in self.retired:
            raise BanditError(f"Arm {arm!r} is retired already.")
        if len(self.active) == 1:
            raise BanditError(f"Arm {arm!r} is the last one: add another before retiring it.")
        self.retired.add(arm)

    def add_task(self, task: str) -> None:
        """A task that the encoder has no code for: rewards on it get a level of their own, which all arms share.

        Raises
        ------
        BanditError
            If it joined before.
        """
        if task in self.levels:
            raise BanditError(f"Task {task!r} has joined already.")
        self.levels[task] = TaskLevel()

    def copy(self) -> LinearBandit:
        """The same bandit with arrays of its own."""
        other = type(self)(
            self.arms,
            self.dimension,
            exploration=self.exploration,
            regularisation=self.regularisation,
            seed=self.seed,
            mixing=self.mixing,
            reward_range=self.reward_range,
            source=self.source,
            posterior=self.posterior.copy(),
        )
        other.retired, other.levels, other.selected = set(self.retired), dict(self.levels), self.selected
        other.trials = dict(self.trials)
        return other

    @property
    def key(self) -> str:
        """SHA-256 (hex) of settings and every bit of the posterior."""
        return state_key(self)

    def save(self, folder: Location) -> Location:
        """Write the state as safetensors and JSON; the folder appears complete or not at all."""
        return save_bandit(self, folder)

    @classmethod
    def load(cls, folder: Location) -> Self:
        """Read a saved state of this policy.

        Raises
        ------
        BanditError
            If it is missing, damaged, or of another policy.
        """
        found = load_bandit(folder)
        if not isinstance(found, cls):
            raise BanditError(f"The bandit in {folder} is {found.kind}, not {cls.kind}: load it as what it is.")
        return found

    def _open(self) -> np.ndarray:
        return np.array([arm not in self.retired for arm in self.arms])

    def _mixed(self, mean: np.ndarray, deviation: np.ndarray) -> np.ndarray:
        open_arms = self._open()
        out = np.zeros(len(self.arms))
        trial = [self.arms.index(arm) for arm in self.on_trial]
        out[open_arms] = self._share(mean[open_arms], deviation[open_arms])
        if trial:
            out *= 1.0 - TRIAL_SHARE
            out[trial] += TRIAL_SHARE / len(trial)
        out *= 1.0 - self.mixing
        out[open_arms] += self.mixing / open_arms.sum()
        return out

    def _share(self, mean: np.ndarray, deviation: np.ndarray) -> np.ndarray:
        """Probability of each open arm without mixing."""
        raise NotImplementedError

    def _pick(self, mean: np.ndarray, deviation: np.ndarray, numbers: np.random.Generator, arms: np.ndarray) -> int:
        """Position among the open arms, whose numbers are `arms`."""
        raise NotImplementedError


class LinTS(LinearBandit):
    """Linear Thompson sampling (Agrawal & Goyal, 2013), the paper's bandit: draw each arm's reward, take the highest.

    Drawing w̃ₐ ~ N(ŵₐ, v² Aₐ⁻¹) and taking w̃ₐᵀz is drawing a number from N(ŵₐᵀz, v² zᵀAₐ⁻¹z): arms are independent
    and a round has one context, so that is what is drawn.
    """

    kind = "lints"

    def _share(self, mean: np.ndarray, deviation: np.ndarray) -> np.ndarray:
        return probability_of_best(mean, deviation)

    def _pick(self, mean: np.ndarray, deviation: np.ndarray, numbers: np.random.Generator, arms: np.ndarray) -> int:
        # A number per arm that was ever there: an arm that joins or retires changes no other arm's draw.
        draws = numbers.standard_normal(len(self.arms))[arms]
        values = mean + deviation * draws
        best = np.flatnonzero(values == values.max())
        return int(best[int(numbers.random() * len(best))])  # equal only where nothing is drawn


class LinUCB(LinearBandit):
    """LinUCB with one model per arm (Li et al., 2010; Abbasi-Yadkori et al., 2011): the highest upper bound."""

    kind = "linucb"

    def _share(self, mean: np.ndarray, deviation: np.ndarray) -> np.ndarray:
        share = np.zeros(len(mean))
        share[self._first(mean + deviation)] = 1.0
        return share

    def _pick(self, mean: np.ndarray, deviation: np.ndarray, numbers: np.random.Generator, arms: np.ndarray) -> int:
        return self._first(mean + deviation)

    @staticmethod
    def _first(bound: np.ndarray) -> int:
        return int(np.argmax(bound >= bound.max() - _TIE))


class UniformBandit(LinearBandit):
    """Chooses among the arms alike, and learns all the same: the reference of §4.5, and a way to log without bias."""

    kind = "uniform"

    def _share(self, mean: np.ndarray, deviation: np.ndarray) -> np.ndarray:
        return np.full(len(mean), 1.0 / len(mean))

    def _pick(self, mean: np.ndarray, deviation: np.ndarray, numbers: np.random.Generator, arms: np.ndarray) -> int:
        return int(numbers.random() * len(arms))


POLICIES: dict[str, type[LinearBandit]] = {policy.kind: policy for policy in (LinTS, LinUCB, UniformBandit)}
"""Every policy by name."""
