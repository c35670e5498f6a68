"""docker/Dockerfile as a text: what goes into the image, and who runs in it."""

from __future__ import annotations

import json
import re
import subprocess

import pytest
import yaml
from cluster_compose import COMPOSE
from cluster_dockerfile import DOCKERFILE, PROJECT, copied, in_context, stages
from cluster_linters import program

pytestmark = pytest.mark.cluster

SOURCES = [source for stage in stages() for sources, _ in copied(stage) for source in sources]


def test_hadolint_finds_nothing() -> None:
    done = subprocess.run([program("hadolint"), str(DOCKERFILE)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")


def test_stages_are_named_and_begin_with_known_images() -> None:
    found = stages()
    names = [stage.name for stage in found]
    assert all(names)
    assert len(set(names)) == len(names)
    for number, stage in enumerate(found):
        if stage.base in names:
            assert names.index(stage.base) < number
        elif stage.base == "torch-${ACCELERATOR}":
            assert {"torch-cpu", "torch-cuda"} <= set(names[:number])
        else:
            assert re.fullmatch(r"python:\$\{PYTHON_VERSION\}-slim-\w+", stage.base), stage.base


def test_the_accelerators_of_compose_are_stages() -> None:
    content = yaml.safe_load(COMPOSE.read_text("utf-8"))
    wanted = {entry["build"]["args"]["ACCELERATOR"] for entry in content["services"].values() if "build" in entry}
    assert wanted == {"cpu", "cuda"}
    assert {f"torch-{accelerator}" for accelerator in wanted} <= {stage.name for stage in stages()}


def test_the_last_user_is_not_root_and_nothing_is_done_after() -> None:
    kinds = [instruction.keyword for instruction in stages()[-1].instructions]
    user = stages()[-1].all("USER")[-1]
    assert re.fullmatch(r"[1-9]\d{3,}:[1-9]\d{3,}", user.rest)
    assert not {"RUN", "COPY", "ADD"} & set(kinds[kinds.index("USER") :])


def test_the_image_asks_after_itself() -> None:
    (check,) = stages()[-1].all("HEALTHCHECK")
    assert {"interval", "timeout", "start-period", "retries"} <= check.flags.keys()
    command = json.loads(check.rest.removeprefix("CMD").strip())
    services = yaml.safe_load(COMPOSE.read_text("utf-8"))["services"]
    assert ["CMD", *command] == services["webserver"]["healthcheck"]["test"]


def test_nothing_is_fetched_by_address_and_no_secret_is_an_argument() -> None:
    for stage in stages():
        assert stage.all("ADD") == []
        for instruction in [*stage.all("ARG"), *stage.all("ENV")]:
            assert not re.search(r"(?i)password|secret|token|_key", instruction.rest), instruction


@pytest.mark.parametrize("source", sorted(set(SOURCES)))
def test_what_is_copied_is_in_the_repository_and_in_the_build_context(source: str) -> None:
    assert (PROJECT / source).exists()
    tracked = subprocess.run(["git", "ls-files", "--", source], cwd=PROJECT, capture_output=True, text=True, check=True)
    assert tracked.stdout.strip()
    assert in_context(source)


@pytest.mark.parametrize(
    "source", ["docker/.env", ".git", ".venv", "data", "demo", "studies", "dagster_home/storage", "tests", "docs"]
)
def test_nothing_else_is_in_the_build_context(source: str) -> None:
    assert not in_context(source)


def test_bytecode_of_the_checkout_stays_outside() -> None:
    assert not in_context("simmerge_core/__pycache__")


def test_every_package_is_copied() -> None:
    packages = {folder.name for folder in PROJECT.glob("simmerge_*") if (folder / "__init__.py").is_file()}
    assert packages
    assert packages <= set(SOURCES)


def test_extras_are_those_of_the_project_or_only_missing_yet() -> None:
    (argument,) = [a for stage in stages() for a in stage.all("ARG") if a.rest.startswith("EXTRAS=")]
    args = yaml.safe_load(COMPOSE.read_text("utf-8"))["x-simmerge"]["build"]["args"]
    assert args["EXTRAS"] == f"${{SIMMERGE_EXTRAS:-{argument.rest.removeprefix('EXTRAS=')}}}"
