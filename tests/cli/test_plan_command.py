"""What `simmerge plan` says beside the ranking: intervals, what is open, why, and weighted targets."""

from __future__ import annotations

import json

import pytest
from cli_results import train_selector, write_features
from cli_world import World

from simmerge_cli.plan_text import listed, settlement_notes, target_text, unseen_note
from simmerge_core.planning import Settlement, search, settle, target_of
from simmerge_core.selector import Selector, adapted
from simmerge_core.tables import PAIRWISE_FEATURES, DataRoot

IDS = ("math-01", "code-01", "rag-01", "instruct-01", "code-02", "rag-02")
PLAN = ("plan", *IDS[:4])


@pytest.fixture
def asked(world: World) -> World:
    write_features(world.data, IDS, "math")
    train_selector(world.data)
    write_features(world.data, IDS, "code")
    return world


def test_json_says_what_the_library_says(asked: World) -> None:
    result = asked.run(*PLAN, "--task", "math", "--k", 3, "--top", 4, "--json")
    assert result.exit_code == 0, result.stderr
    told = json.loads(result.stdout)
    selector = Selector.load(asked.data / "selector" / "extended")
    features = DataRoot(asked.data).scan(PAIRWISE_FEATURES).collect()
    ranked = search(selector, features, IDS[:4], "math", k=3, top=4)
    assert told["plans"] == ranked.to_dicts()
    settlement = settle(ranked, selector, target_of("math"))
    assert told["level"] == settlement.level == 0.9
    assert told["cannot_be_told_apart"] == list(settlement.cannot_be_told_apart) == [2, 3, 4]
    assert told["evaluations_to_settle"] == {
        "plans": 4,
        "items_each": settlement.items_each,
        "difference": settlement.difference,
    }
    assert told["labels"]["items"] == 64
    assert "explanation" not in told


def test_text_shows_intervals_and_what_is_open(asked: World) -> None:
    result = asked.run(*PLAN, "--task", "math", "--k", 3, "--top", 4)
    assert result.exit_code == 0, result.stderr
    first = json.loads(asked.run(*PLAN, "--task", "math", "--k", 3, "--json").stdout)["plans"][0]
    assert "90 % interval" in result.stdout
    assert f"{first['low']:.3f} to {first['high']:.3f}" in result.stdout
    assert "Plans 2–4 cannot be told apart from the first at 90 %. To settle it, execute these 4" in result.stderr
    assert "see more with --top" in result.stderr
    assert "The 64 items of a label resolve differences from" in result.stderr
    assert "calibrated on merges of two; for 3" in result.stderr


def test_explanation_in_text_and_json(asked: World) -> None:
    words = (*PLAN, "--task", "math", "--k", 3, "--explain")
    result = asked.run(*words)
    assert result.exit_code == 0, result.stderr
    told = json.loads(asked.run(*words, "--json").stdout)
    assert [step["action"] for step in told["explanation"]] == told["plans"][0]["actions"]
    for number, step in enumerate(told["explanation"], start=1):
        assert f"Step {number}: {step['action']} is predicted" in result.stdout
        total = sum(group["contribution"] for group in step["groups"])
        assert total == pytest.approx(step["lead"] - step["usual"], abs=1e-9)
        for group in step["groups"]:
            assert f"{group['contribution']:+.4f}" in result.stdout


def test_a_checkpoint_without_labels_is_named(asked: World) -> None:
    assert "no labels of" not in asked.run(*PLAN, "--task", "math").stderr
    write_features(asked.data, (*IDS, "code-03"), "math")
    words = ("plan", "math-01", "code-03", "--task", "math")
    result = asked.run(*words)
    assert result.exit_code == 0, result.stderr
    assert "The selector has no labels of code-03: intervals of plans with such a checkpoint are" in result.stderr
    assert json.loads(asked.run(*words, "--json").stdout)["checkpoints_without_labels"] == ["code-03"]
    assert unseen_note(["a", "b"], calibrated=True) == (
        "The selector has no labels of a and b: intervals of plans with such a checkpoint come from checkpoints that "
        "were held out of training, and are wider."
    )


def test_weighted_tasks(asked: World) -> None:
    result = asked.run(*PLAN, "--task", "math=3", "--task", "code", "--json")
    assert result.exit_code == 0, result.stderr
    told = json.loads(result.stdout)
    assert told["target"] == {"tasks": ["math", "code"], "combine": "mean", "weights": [0.75, 0.25]}
    features = DataRoot(asked.data).scan(PAIRWISE_FEATURES).collect()
    selector = Selector.load(asked.data / "selector" / "extended")
    ranked = search(selector, features, IDS[:4], ["math", "code"], k=4, weights=[3, 1])
    assert told["plans"] == ranked.to_dicts()
    text = asked.run(*PLAN, "--task", "math=3", "--task", "code", "--k", 3)
    assert "predicted on 0.75 math + 0.25 code" in text.stderr


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (("--task", "math=much", "--task", "code"), "'much' of task 'math' is no number"),
        (("--task", "math=", "--task", "code"), "is no number"),
        (("--task", "math=-1", "--task", "code"), "none negative"),
        (("--task", "math=0", "--task", "code=0"), "not all zero"),
        (("--task", "math=inf", "--task", "code"), "finite"),
        (("--task", "math=nan", "--task", "code"), "finite"),
        (("--task", "math", "--task", "math=2"), "'math' is named twice"),
        (("--task", "math=2", "--task", "code", "--how", "min"), "minimum"),
        (("--task", "chess=2", "--task", "math"), "chess"),
    ],
)
def test_bad_targets_are_said_in_one_sentence(asked: World, words: tuple[str, ...], why: str) -> None:
    before = asked.state()
    result = asked.run(*PLAN, *words)
    assert result.exit_code == 2
    assert result.stderr.startswith("Error: ")
    assert result.stderr.count("\n") == 1
    assert why in result.stderr
    assert asked.state() == before


def test_notes_in_words() -> None:
    nothing = Settlement(0.9, (), 0, 0.01, 0, 100, 0.14)
    notes = settlement_notes(nothing, plans=5, cut=True, k=2)
    assert notes[0] == "The first plan differs from every other that is listed at 90 %."
    assert settlement_notes(nothing, plans=1, cut=True, k=2) == [
        "The 100 items of a label resolve differences from 0.140 on."
    ]
    one = Settlement(0.9, (3,), 2, 0.02, None, None, None)
    assert settlement_notes(one, plans=5, cut=True, k=2) == [
        "Plan 3 cannot be told apart from the first at 90 %. How many items would settle it is unknown: the labels "
        "have no standard errors."
    ]
    some = Settlement(0.9, (2, 4, 5, 6, 9), 6, 0.05, 1570, None, None)
    (note,) = settlement_notes(some, plans=9, cut=False, k=2)
    assert note.startswith("Plans 2, 4–6 and 9 cannot be told apart from the first at 90 %. To settle it, execute")
    assert "score each on 1,570 items per benchmark: a difference of 0.050 then shows" in note
    assert [listed(words) for words in (["a"], ["a", "b"], ["a", "b", "c"])] == ["a", "a and b", "a, b and c"]
    assert target_text(target_of(["math", "code"], combine="min")) == "the minimum of math and code"
    assert target_text(target_of("math")) == "math"


def test_a_selector_of_another_catalog_is_adapted_on_all_pairs_and_tasks(asked: World) -> None:
    result = asked.run(*PLAN, "--task", "math", "--k", 3, "--top", 4, "--adapt", "--json")
    assert result.exit_code == 0, result.stderr
    features = DataRoot(asked.data).scan(PAIRWISE_FEATURES).collect()
    selector = adapted(Selector.load(asked.data / "selector" / "extended"), features)
    told = json.loads(result.stdout)
    assert told["selector_key"] == selector.key
    assert told["plans"] == search(selector, features, IDS[:4], "math", k=3, top=4).to_dicts()
