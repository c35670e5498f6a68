"""``simmerge bandit list | rounds | replay | judge | restart``: bandits that choose operators and keep learning."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated

import typer

from simmerge_cli.options import DEFAULT_DATA, DataFolder, Json
from simmerge_cli.output import note, print_json, print_table, progress
from simmerge_core.errors import BanditError

if TYPE_CHECKING:
    from simmerge_core.bandit import OnlineBandit
    from simmerge_core.storage import Location

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    add_completion=False,
    help="Bandits that choose operators and keep learning: what they know, their rounds, and policies judged on them.",
)

_DIFFERENT = 1
"""Exit code of `bandit replay` when it did its work and found a difference."""

Name = Annotated[str, typer.Argument(metavar="NAME", help="The bandit: action set and policy, as `bandit list` says.")]


@app.command("list", epilog="\b\nExample:\n  simmerge bandit list")
def listed(data: DataFolder = DEFAULT_DATA, json: Json = False) -> None:
    """Say which bandits were started, what they may choose, and what their rounds brought."""
    from simmerge_core.bandit import bandit_names
    from simmerge_core.tables import DataRoot

    found, broken = {}, {}
    for name in bandit_names(DataRoot(data)):
        try:
            found[name] = _opened(data, name).summary()
        except BanditError as error:  # one that is damaged must not hide the others
            broken[name] = str(error)
    if json:
        print_json({**found, **{name: {"error": text} for name, text in broken.items()}})
        _end(broken)
        return
    if not found and not broken:
        note(f"No bandit was started under {data}: declare a merge request with policy lints or linucb.")
        return
    columns = ("bandit", "operators", "rounds", "waiting for a reward", "mean reward", "exploration")
    rows = [
        (name, s["arms"], s["rounds"], s["pending"], s["mean_reward"], s["exploration"]) for name, s in found.items()
    ]
    if found:
        print_table(columns, rows)
    _end(broken)


@app.command("rounds", epilog="\b\nExample:\n  simmerge bandit rounds extended-lints --json")
def rounds(name: Name, data: DataFolder = DEFAULT_DATA, json: Json = False) -> None:
    """Print every round: what was chosen, how likely it was, what it brought."""
    log = _opened(data, name).durable.rounds()
    if json:
        print_json(log.to_dicts())
        return
    told = ["round_id", "arm", "propensity", "reward"]
    print_table(("round", "chosen", "with probability", "reward"), [list(row) for row in log.select(told).iter_rows()])


@app.command("replay", epilog="\b\nExample:\n  simmerge bandit replay\n  simmerge bandit replay extended-lints --json")
def replay(
    name: Annotated[str | None, typer.Argument(metavar="[NAME]", help="One bandit; all if not given.")] = None,
    data: DataFolder = DEFAULT_DATA,
    json: Json = False,
) -> None:
    """Replay a bandit's log from its warm start: every decision and posterior must come out the same, bit for bit.

    Exit code 1 if one does not.
    """
    from dataclasses import asdict

    from simmerge_core.bandit import DurableBandit, bandit_folder, bandit_names
    from simmerge_core.tables import DataRoot

    root = DataRoot(data)
    names = [name] if name is not None else bandit_names(root)
    if not names:
        raise BanditError(f"No bandit was started under {data}: declare a merge request with policy lints or linucb.")
    found, broken = {}, {}
    for each in names:
        try:
            with progress(quiet=json) as report:
                found[each] = DurableBandit.open(bandit_folder(root, each)).replay(progress=report)
        except BanditError as error:
            if name is not None:
                raise
            broken[each] = str(error)
    identical = all(result.identical for result in found.values())
    if json:
        told = {each: asdict(result) for each, result in found.items()}
        print_json({**told, **{each: {"error": text} for each, text in broken.items()}})
    else:
        columns = ("bandit", "events", "rounds", "learned", "waiting", "sum of rewards", "identical", "posterior")
        rows = [
            (each, r.events, r.rounds, r.learned, r.pending, r.cumulative_reward, r.identical, r.state_key[:16])
            for each, r in found.items()
        ]
        print_table(columns, rows)
        for each, result in found.items():
            for sentence in result.differences:
                note(f"{each}: {sentence}")
    _end(broken)
    if not identical:
        raise typer.Exit(_DIFFERENT)


@app.command(
    "judge",
    epilog="\b\nExample:\n  simmerge bandit judge extended-lints --policy greedy\n"
    "  simmerge bandit judge extended-lints --policy lints --exploration 0.1 --against slerp@0.5",
)
def judge(
    name: Name,
    policy: Annotated[
        str,
        typer.Option(
            "--policy", metavar="P", help="lints, linucb, uniform, greedy, or an operator.", show_default=False
        ),
    ],
    against: Annotated[
        str | None, typer.Option("--against", metavar="P", help="Give the difference to this policy.")
    ] = None,
    exploration: Annotated[
        float | None, typer.Option("--exploration", min=0.0, help="Of the policy; the bandit's own if not given.")
    ] = None,
    mixing: Annotated[
        float | None, typer.Option("--mixing", min=0.0, max=1.0, help="Share of uniform choices of the policy.")
    ] = None,
    clip: Annotated[float | None, typer.Option("--clip", help="Weight above which two estimators hold back.")] = None,
    data: DataFolder = DEFAULT_DATA,
    json: Json = False,
) -> None:
    """Estimate what a policy would have earned on the logged rounds, before it goes live (off-policy evaluation)."""
    from simmerge_core.bandit.judging import judge as judged

    online = _opened(data, name)
    estimates = judged(online, policy, exploration=exploration, mixing=mixing, against=against, clip=clip)
    if json:
        print_json(
            {"bandit": name, "policy": policy, "against": against, "estimates": [e.as_dict() for e in estimates]}
        )
        return
    what = f"reward of {policy}" if against is None else f"reward of {policy} minus {against}"
    columns = ("estimator", what, "95 % interval", "effective rounds", "largest weight")
    rows = [
        (e.name, e.value, f"{e.low:.4f} to {e.high:.4f}", e.effective_sample_size, e.largest_weight) for e in estimates
    ]
    print_table(columns, rows)
    first = estimates[0]
    unsupported = any(e.unsupported for e in estimates)
    note(
        f"{first.rounds} rounds of {first.groups} merge requests, each step judged by its own reward with the steps "
        "before it as they were logged" + ("." if unsupported else "; dr is unbiased for that whatever the model is.")
    )
    if unsupported:
        note(
            f"Only {first.support:.0%} of the policy's choices could have been logged: what the others would earn is "
            "the model's guess. A policy with mixing logs every operator now and then (bandit.mixing in the catalog)."
        )


@app.command("restart", epilog="\b\nExample:\n  simmerge bandit restart extended-lints")
def restart(name: Name, data: DataFolder = DEFAULT_DATA, json: Json = False) -> None:
    """Put a bandit aside with its log, so that the next one of its name begins on the labels that are there then."""
    from simmerge_core.bandit.online import put_aside
    from simmerge_core.tables import DataRoot

    aside = put_aside(DataRoot(data), name)
    if json:
        print_json({"restarted": name, "kept": str(aside)})
    else:
        typer.echo(f"Put aside as {aside.name}; {name} begins anew when its next merge request is materialized.")


def _end(broken: Mapping[str, str]) -> None:
    """Say which bandits could not be read, and leave with an error if there are any."""
    for name, text in broken.items():
        note(f"{name}: {text}")
    if broken:
        raise typer.Exit(_DIFFERENT)


def _opened(data: Location, name: str) -> OnlineBandit:
    from simmerge_core.bandit import OnlineBandit, bandit_folder
    from simmerge_core.tables import DataRoot

    return OnlineBandit.open(bandit_folder(DataRoot(data), name))
