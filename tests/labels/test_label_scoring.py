"""Labels on the tiny catalog: the same from any number of processes, resumed after a kill, and never made twice."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from simmerge_core.catalog import Catalog, load_catalog
from simmerge_core.checkpoints import fingerprint, open_checkpoint
from simmerge_core.errors import EvaluationError
from simmerge_core.evaluation import EvaluationStore, evaluate
from simmerge_core.labels import LabelFailures, design, label_pairs, label_plans, pool, score_plans, score_standalone
from simmerge_core.labels.bench import Answer, Job, Setting
from simmerge_core.plans import plan_of
from simmerge_core.tables import MERGE_LABELS, PLAN_LABELS, STANDALONE_SCORES

pytestmark = pytest.mark.integration
ACTIONS = ("linear@0.5", "slerp@0.3", "task_arithmetic@0.5")


@pytest.fixture(scope="module")
def catalog(tiny_catalog: Path) -> Catalog:
    return load_catalog(tiny_catalog)


def fingerprints_of(catalog: Catalog) -> dict[str, str]:
    return {e.id: fingerprint(open_checkpoint(Path(str(e.path)))) for e in (catalog.base, *catalog.checkpoints)}


@pytest.fixture(scope="module")
def fingerprints(catalog: Catalog) -> dict[str, str]:
    return fingerprints_of(catalog)


@pytest.fixture(scope="module")
def rows(catalog: Catalog) -> pl.DataFrame:
    """Two pairs, on both tasks each."""
    return design(catalog, catalog.checkpoint_ids).filter(kind="expert_auxiliary").head(4)


@pytest.fixture(scope="module")
def labelled(
    catalog: Catalog, fingerprints: dict[str, str], rows: pl.DataFrame, tmp_path_factory: pytest.TempPathFactory
) -> tuple[pl.DataFrame, Path]:
    """Labels made in this process, and the store they lie in."""
    folder = tmp_path_factory.mktemp("labelled")
    frame = label_pairs(rows, ACTIONS, catalog, store=EvaluationStore(folder), fingerprints=fingerprints)
    return frame, folder


def no_work(*_: Any, **__: Any) -> Iterator[Answer]:
    raise AssertionError("something was evaluated that is in the store")
    yield


def test_labels_satisfy_the_table_and_cover_every_action(
    labelled: tuple[pl.DataFrame, Path], rows: pl.DataFrame, catalog: Catalog
) -> None:
    frame, _ = labelled
    for task, part in frame.group_by("task"):
        MERGE_LABELS.validated(part.drop("task"), where=str(task))
    metrics, item_sets = catalog.tasks[0].benchmarks[0].metrics, catalog.tasks[0].benchmarks[0].item_sets
    assert frame.height == rows.height * len(ACTIONS) * len(metrics) * len(item_sets)
    assert frame.select("a", "b", "task").unique(maintain_order=True).rows() == rows.select("a", "b", "task").rows()
    assert set(frame["action"]) == set(ACTIONS)


def test_a_label_is_what_the_written_merge_scores(
    labelled: tuple[pl.DataFrame, Path], catalog: Catalog, tmp_path: Path
) -> None:
    from simmerge_core.merging import execute_plan

    frame, _ = labelled
    for action in ACTIONS:
        row = frame.filter(action=action).row(0, named=True)
        folders = {id: Path(str(catalog.checkpoint(id).path)) for id in (row["a"], row["b"])}
        out = tmp_path / action
        execute_plan(plan_of(list(folders), [action]), folders, out, base=Path(str(catalog.base.path)), dtype="float32")
        written = evaluate(out, catalog.task(row["task"]))
        expected = frame.filter(a=row["a"], b=row["b"], task=row["task"], action=action)
        assert written["utility"].to_list() == expected["utility"].to_list()


def test_workers_change_nothing(
    labelled: tuple[pl.DataFrame, Path],
    catalog: Catalog,
    fingerprints: dict[str, str],
    rows: pl.DataFrame,
    tmp_path: Path,
) -> None:
    told: list[tuple[str, float]] = []
    frame = label_pairs(
        rows,
        ACTIONS,
        catalog,
        store=EvaluationStore(tmp_path),
        fingerprints=fingerprints,
        workers=2,
        progress=lambda text, fraction: told.append((text, fraction)),
    )
    assert frame.equals(labelled[0])
    assert told[0] == ("models scored: 0 of 6", 0.0)
    assert told[-1] == ("models scored: 6 of 6", 1.0)
    assert [fraction for _, fraction in told] == sorted(fraction for _, fraction in told)


def test_what_is_stored_is_never_evaluated_again_in_either_orientation(
    labelled: tuple[pl.DataFrame, Path],
    catalog: Catalog,
    fingerprints: dict[str, str],
    rows: pl.DataFrame,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from simmerge_core.labels import scoring

    frame, folder = labelled
    monkeypatch.setattr(scoring, "answers", no_work)
    again = label_pairs(rows, ACTIONS, catalog, store=EvaluationStore(folder), fingerprints=fingerprints)
    assert again.equals(frame)
    turned = rows.rename({"a": "b", "b": "a"})
    actions = ("linear@0.5", "slerp@0.7", "task_arithmetic@0.5")
    other = label_pairs(turned, actions, catalog, store=EvaluationStore(folder), fingerprints=fingerprints)
    assert other["utility"].to_list() == frame["utility"].to_list()
    assert (other["a"].to_list(), other["a_fingerprint"].to_list()) == (
        frame["b"].to_list(),
        frame["b_fingerprint"].to_list(),
    )


def test_a_full_store_needs_neither_torch_nor_lm_eval(
    labelled: tuple[pl.DataFrame, Path], catalog: Catalog, fingerprints: dict[str, str]
) -> None:
    code = (
        "import sys\n"
        "from simmerge_core.catalog import load_catalog\n"
        "from simmerge_core.evaluation import EvaluationStore\n"
        "from simmerge_core.labels import design, label_pairs\n"
        f"catalog = load_catalog({str(catalog.path)!r})\n"
        "rows = design(catalog, catalog.checkpoint_ids)\n"
        "rows = rows.filter(rows['kind'] == 'expert_auxiliary').head(4)\n"
        f"label_pairs(rows, {ACTIONS!r}, catalog, store=EvaluationStore({str(labelled[1])!r}),\n"
        f"            fingerprints={fingerprints!r})\n"
        "print(sorted({'torch', 'transformers', 'lm_eval', 'dagster'} & set(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, timeout=120)
    assert done.stdout.strip() == "[]"


def test_a_killed_run_goes_on(
    labelled: tuple[pl.DataFrame, Path],
    catalog: Catalog,
    fingerprints: dict[str, str],
    rows: pl.DataFrame,
    tmp_path: Path,
) -> None:
    code = (
        "import time\n"
        "from simmerge_core.catalog import load_catalog\n"
        "from simmerge_core.evaluation import EvaluationStore\n"
        "from simmerge_core.labels import design, label_pairs\n"
        f"catalog = load_catalog({str(catalog.path)!r})\n"
        "rows = design(catalog, catalog.checkpoint_ids)\n"
        f"store = EvaluationStore({str(tmp_path)!r})\n"
        "put = store.put\n"
        "def slowly(key, frame):\n"
        "    put(key, frame)\n"
        "    store.flush()\n"
        "    print('stored', flush=True)\n"
        "    time.sleep(0.2)\n"
        "store.put = slowly\n"
        f"label_pairs(rows, {ACTIONS!r}, catalog, store=store, fingerprints={fingerprints!r})\n"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert [process.stdout.readline() for _ in range(3)] == [b"stored\n"] * 3
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    store = EvaluationStore(tmp_path)
    assert len(store) >= 3
    told: list[str] = []
    frame = label_pairs(
        rows, ACTIONS, catalog, store=store, fingerprints=fingerprints, progress=lambda text, _: told.append(text)
    )
    assert frame.equals(labelled[0])
    assert told[0] != "models scored: 0 of 6"


@pytest.fixture
def damaged(tiny_catalog: Path, tmp_path: Path) -> Catalog:
    """A copy of the tiny catalog in which one checkpoint is truncated and one is gone."""
    shutil.copytree(tiny_catalog.parent, tmp_path / "catalog")
    catalog = load_catalog(tmp_path / "catalog" / tiny_catalog.name)
    first, second = catalog.checkpoint_ids[:2]
    weights = Path(str(catalog.checkpoint(first).path)) / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1000])
    shutil.rmtree(Path(str(catalog.checkpoint(second).path)))
    return catalog


def test_broken_checkpoints_stop_no_other(damaged: Catalog, fingerprints: dict[str, str], tmp_path: Path) -> None:
    rows = design(damaged, damaged.checkpoint_ids)
    store = EvaluationStore(tmp_path / "store")
    with pytest.raises(LabelFailures) as caught:
        label_pairs(rows, ["linear@0.5"], damaged, store=store, fingerprints=fingerprints)
    broken = damaged.checkpoint_ids[:2]
    assert caught.value.checkpoints == tuple(sorted(broken))
    for id in broken:
        assert f"checkpoint {id!r}" in str(caught.value)
    sound = rows.filter(~pl.col("a").is_in(broken) & ~pl.col("b").is_in(broken))
    frame = caught.value.frame
    assert frame.select("a", "b", "task").unique(maintain_order=True).equals(sound.select("a", "b", "task"))
    assert label_pairs(sound, ["linear@0.5"], damaged, store=store, fingerprints=fingerprints).equals(frame)


def test_a_checkpoint_without_fingerprint_is_a_failure(
    catalog: Catalog, fingerprints: dict[str, str], tmp_path: Path
) -> None:
    known = {id: value for id, value in fingerprints.items() if id != catalog.checkpoint_ids[0]}
    with pytest.raises(LabelFailures, match="has no fingerprint"):
        score_standalone(
            catalog.checkpoint_ids[:1], ["math"], catalog, store=EvaluationStore(tmp_path), fingerprints=known
        )


def test_what_must_not_be_read_is_not_scored_and_nothing_is_kept_of_it(
    catalog: Catalog, fingerprints: dict[str, str], tmp_path: Path
) -> None:
    store, (first, second) = EvaluationStore(tmp_path), catalog.checkpoint_ids[:2]
    options = {"store": store, "fingerprints": fingerprints, "unusable": {first: "it has other weights now."}}
    with pytest.raises(LabelFailures, match=f"checkpoint '{first}': it has other weights now") as caught:
        score_standalone([first, second], ["math"], catalog, **options)  # type: ignore[arg-type]
    assert caught.value.frame["checkpoint"].unique().to_list() == [second]
    assert len(store) == caught.value.frame["evaluation_key"].n_unique() == 1
    with pytest.raises(EvaluationError, match="The base 'base' is needed"):
        score_standalone([second], ["math"], catalog, **{**options, "unusable": {"base": "gone"}})  # type: ignore[arg-type]


def test_a_broken_base_is_said_before_any_work(
    catalog: Catalog, fingerprints: dict[str, str], rows: pl.DataFrame, tmp_path: Path
) -> None:
    known = {id: value for id, value in fingerprints.items() if id != "base"}
    with pytest.raises(EvaluationError, match="The base 'base'"):
        label_pairs(rows, ACTIONS, catalog, store=EvaluationStore(tmp_path), fingerprints=known)


def test_plans_and_standalones_share_the_store(
    labelled: tuple[pl.DataFrame, Path],
    catalog: Catalog,
    fingerprints: dict[str, str],
    rows: pl.DataFrame,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    from simmerge_core.labels import scoring

    frame, folder = labelled
    ids = catalog.checkpoint_ids
    alone = score_standalone(
        ["base", *ids[:1]], ["math"], catalog, store=EvaluationStore(tmp_path), fingerprints=fingerprints
    )
    for (checkpoint,), part in alone.group_by("checkpoint"):
        STANDALONE_SCORES.validated(part.drop("checkpoint", "task"), where=str(checkpoint))
    expected = evaluate(Path(str(catalog.checkpoint("base").path)), catalog.task("math"))
    assert alone.filter(checkpoint="base")["utility"].to_list() == expected["utility"].to_list()
    three = plan_of([ids[0], ids[2], ids[4]], ["slerp@0.5", "ties@0.5"])
    plans = label_plans([(three, "math")], catalog, store=EvaluationStore(tmp_path), fingerprints=fingerprints)
    PLAN_LABELS.validated(plans.drop("task"), where="math")
    assert plans["configuration"][0] == "+".join(sorted((ids[0], ids[2], ids[4])))
    # A pair as a plan is the pair that was labelled.
    monkeypatch.setattr(scoring, "answers", no_work)
    row = frame.row(0, named=True)
    pair = plan_of([row["a"], row["b"]], [row["action"]])
    same = score_plans([(pair, row["task"])], catalog, store=EvaluationStore(folder), fingerprints=fingerprints)
    assert same["utility"][0] == row["utility"]


def test_unknown_dtype_and_task(catalog: Catalog, fingerprints: dict[str, str], tmp_path: Path) -> None:
    from simmerge_core.errors import CatalogError

    store = EvaluationStore(tmp_path)
    with pytest.raises(EvaluationError, match="dtype 'int8'"):
        score_plans([], catalog, store=store, fingerprints=fingerprints, dtype="int8")
    with pytest.raises(CatalogError, match="'poetry'"):
        score_plans([(plan_of(["base"], []), "poetry")], catalog, store=store, fingerprints=fingerprints)


def test_nothing_to_do(catalog: Catalog, fingerprints: dict[str, str], tmp_path: Path) -> None:
    store = EvaluationStore(tmp_path)
    nothing = design(catalog, [])
    assert label_pairs(nothing, ACTIONS, catalog, store=store, fingerprints=fingerprints).is_empty()
    assert label_plans([], catalog, store=store, fingerprints=fingerprints).is_empty()


@pytest.fixture
def echo(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[str], None]:
    """Put a light process in the place of the worker, which runs `body` per job."""

    def install(body: str) -> None:
        script = tmp_path / "worker.py"
        script.write_text(
            "import json, os, sys, pathlib\n"
            "here = pathlib.Path(__file__).parent\n"
            "for line in sys.stdin:\n"
            "    job = json.loads(line)\n"
            "    if 'folders' in job:\n"
            "        (here / f'told-{os.getpid()}').open('a').write(job['dtype'] + ' ')\n"
            "        continue\n"
            "    number = job['number']\n"
            f"{body}"
            "    print(json.dumps({'number': number, 'scores': {}}), flush=True)\n"
        )
        monkeypatch.setattr(pool, "_COMMAND", (sys.executable, str(script)))

    return install


JOBS = [Job(i, (f"c{i // 2}",), (), ("math",)) for i in range(8)]
SETTING = Setting("[]", {}, "base", "float32", "cpu", False)


def test_a_dying_process_is_started_again(echo: Callable[[str], None]) -> None:
    echo(
        "    flag = here / f'died-{number}'\n"
        "    if number in (2, 5) and not flag.exists():\n"
        "        flag.touch(); os._exit(9)\n"
    )
    done = list(pool.answers(JOBS, SETTING, workers=3))
    assert sorted(answer.number for answer in done) == list(range(8))
    assert all(answer.error is None for answer in done)


def test_a_job_that_always_kills_is_given_up_and_the_others_answered(echo: Callable[[str], None]) -> None:
    echo("    if number == 3:\n        sys.exit('out of luck')\n")
    done = {answer.number: answer for answer in pool.answers(JOBS, SETTING, workers=2)}
    assert sorted(done) == list(range(8))
    assert [number for number, answer in done.items() if answer.error] == [3]
    assert "2 times" in str(done[3].error)
    assert "out of luck" in str(done[3].error)


def test_a_process_that_never_starts_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool, "_COMMAND", (sys.executable, "-c", "raise SystemExit('no such module')"))
    with pytest.raises(EvaluationError, match=r"could not be started.*no such module"):
        list(pool.answers(JOBS, SETTING, workers=2))


def test_a_process_that_is_gone_before_it_reads_a_large_setting_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool, "_COMMAND", (sys.executable, "-c", "raise SystemExit('no such module')"))
    large = Setting("[" + " " * 2**20 + "]", {}, "base", "float32", "cpu", False)  # more than a pipe holds
    with pytest.raises(EvaluationError, match=r"could not be started.*no such module"):
        list(pool.answers(JOBS, large, workers=2))


def test_leaving_early_ends_the_processes(echo: Callable[[str], None], tmp_path: Path) -> None:
    echo("    (here / f'pid-{os.getpid()}').touch()\n    import time; time.sleep(0.05)\n")
    running = pool.answers(JOBS, SETTING, workers=2)
    next(running)
    running.close()
    pids = [int(path.name.removeprefix("pid-")) for path in tmp_path.glob("pid-*")]
    deadline = time.monotonic() + 10
    while any(Path(f"/proc/{pid}").exists() for pid in pids) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert pids
    assert not any(Path(f"/proc/{pid}").exists() for pid in pids)


def test_kept_processes_are_used_again_told_anew_and_end_with_the_context(
    echo: Callable[[str], None], tmp_path: Path
) -> None:
    echo("    import time; time.sleep(0.02)\n")
    other = replace(SETTING, dtype="bfloat16")
    with pool.kept_workers():
        for setting in (SETTING, other):
            with pool.kept_workers():  # an inner one changes nothing
                done = [answer.number for answer in pool.answers(JOBS, setting, workers=2)]
            assert sorted(done) == list(range(8))
        told = {int(path.name.removeprefix("told-")): path.read_text().split() for path in tmp_path.glob("told-*")}
        assert len(told) == 2
        assert all(dtypes == ["float32", "bfloat16"] for dtypes in told.values())
        assert all(Path(f"/proc/{pid}").exists() for pid in told)
    assert not any(Path(f"/proc/{pid}").exists() for pid in told)


def test_processes_that_were_left_early_are_not_kept(echo: Callable[[str], None], tmp_path: Path) -> None:
    echo("    import time; time.sleep(0.02)\n")
    with pool.kept_workers():
        running = pool.answers(JOBS, SETTING, workers=2)
        next(running)
        running.close()
        assert sorted(a.number for a in pool.answers(JOBS, SETTING, workers=2)) == list(range(8))
