"""docker/compose.yaml as a text: valid, private, and read here as Compose itself reads it."""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from cluster_compose import COMPOSE, interpolated, read
from cluster_dockerfile import PROJECT, stages, unpack
from cluster_linters import program

pytestmark = pytest.mark.cluster

DOCKER = PROJECT / "docker"
SECRET = "not-a-real-password"
VARIABLES = {"DAGSTER_PG_PASSWORD": SECRET}
ONCE = {"migrate"}
# The house style allows longer lines than yamllint does, and YAML's short forms.
STYLE = """{extends: default, rules: {line-length: {max: 120}, document-start: disable,
  braces: {max-spaces-inside: 0}, comments: {min-spaces-from-content: 1}}}"""


def services() -> dict[str, Any]:
    return dict(interpolated(yaml.safe_load(COMPOSE.read_text("utf-8")), VARIABLES)["services"])


def configured(*options: str, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("COMPOSE_", "DAGSTER_", "SIMMERGE_"))}
    command = [program("docker-compose"), "--file", str(COMPOSE), "--env-file", os.devnull, "--profile", "ray"]
    return subprocess.run(
        [*command, "config", *options], env={**environment, **variables}, capture_output=True, text=True, check=False
    )


def test_compose_itself_reads_the_same_services() -> None:
    done = configured("--format", "json", **VARIABLES)
    assert done.returncode == 0, done.stderr
    theirs = json.loads(done.stdout)["services"]
    ours = read(VARIABLES)
    assert theirs.keys() == ours.keys()
    for name, service in ours.items():
        entry = theirs[name]
        assert service.command == (entry.get("command") or []), name
        assert service.environment == entry.get("environment", {}), name
        assert service.healthcheck == entry.get("healthcheck", {}).get("test", ["CMD"])[1:], name
        assert service.depends_on == {k: how["condition"] for k, how in entry.get("depends_on", {}).items()}, name
        assert service.volumes == {v["target"]: v["source"] for v in entry.get("volumes", [])}, name


def test_folders_of_the_host_take_the_place_of_volumes() -> None:
    done = configured("--format", "json", **VARIABLES, SIMMERGE_DATA_FOLDER="/srv/results")
    volumes = json.loads(done.stdout)["services"]["code"]["volumes"]
    assert {v["target"]: v["type"] for v in volumes} == {
        "/catalog": "volume",
        "/data": "bind",
        "/var/lib/dagster": "volume",
    }


def test_without_a_password_compose_says_where_to_set_it() -> None:
    done = configured("--quiet")
    assert done.returncode != 0
    assert "set it in docker/.env" in done.stderr


@pytest.mark.parametrize("name", ["compose.yaml", "compose.gpu.yaml", "dagster.yaml", "workspace.yaml"])
def test_yaml_is_in_style(name: str) -> None:
    lint = pytest.importorskip("yamllint.linter", reason="yamllint is not installed: pip install -e '.[test-docker]'")
    from yamllint.config import YamlLintConfig

    assert [str(p) for p in lint.run((DOCKER / name).read_text("utf-8"), YamlLintConfig(STYLE))] == []


def test_a_gpu_for_the_code_server_is_an_overlay() -> None:
    done = configured("--format", "json", **VARIABLES)
    plain = json.loads(done.stdout)["services"]
    command = [program("docker-compose"), "--file", str(COMPOSE), "--file", str(DOCKER / "compose.gpu.yaml")]
    done = subprocess.run(
        [*command, "--env-file", os.devnull, "--profile", "ray", "config", "--format", "json"],
        env={**os.environ, **VARIABLES},
        capture_output=True,
        text=True,
        check=True,
    )
    found = json.loads(done.stdout)["services"]
    assert {name for name in plain if plain[name] != found[name]} == {"code"}
    assert found["code"]["build"]["args"]["ACCELERATOR"] == "cuda"
    assert found["code"]["environment"]["SIMMERGE_DEVICE"] == "cuda"
    (device,) = found["code"]["deploy"]["resources"]["reservations"]["devices"]
    assert device["capabilities"] == ["gpu"]


def test_ports_are_published_to_this_machine_only() -> None:
    published = [port for entry in services().values() for port in entry.get("ports", [])]
    assert published
    assert all(port.startswith("127.0.0.1:") for port in published)
    assert "ports" not in services()["postgres"]
    assert "ports" not in services()["code"]


def test_services_are_watched_and_restarted() -> None:
    for name, entry in services().items():
        if name in ONCE:
            assert entry["restart"] == "no"
        else:
            assert entry["healthcheck"]["test"][0] == "CMD", name
            assert entry["restart"] == "unless-stopped", name


def test_services_of_ours_run_without_privileges() -> None:
    for name, entry in services().items():
        assert not {"privileged", "network_mode", "pid", "user"} & entry.keys(), name
        if name != "postgres":
            assert entry["cap_drop"] == ["ALL"], name
            assert entry["security_opt"] == ["no-new-privileges:true"], name
            assert entry["pull_policy"] == "never", name


def test_no_password_is_written_down() -> None:
    text = COMPOSE.read_text("utf-8")
    assert text.count("${DAGSTER_PG_PASSWORD:?") == 1
    example = [line for line in (DOCKER / "env.example").read_text("utf-8").splitlines() if "PASSWORD=" in line]
    assert example == ["DAGSTER_PG_PASSWORD="]
    ignored = subprocess.run(["git", "check-ignore", "-q", "docker/.env"], cwd=PROJECT, check=False)
    assert ignored.returncode == 0


def test_every_variable_is_in_the_example() -> None:
    example = (DOCKER / "env.example").read_text("utf-8")
    used = {name for file in DOCKER.glob("compose*.yaml") for name in re.findall(r"\$\{(\w+)", file.read_text("utf-8"))}
    assert {name for name in used if f"{name}=" not in example} == set()


def test_services_get_every_variable_that_the_instance_reads(tmp_path: Path) -> None:
    unpack(tmp_path)
    settings = yaml.safe_load((tmp_path / "opt/dagster/dagster.yaml").read_text("utf-8"))
    wanted = set(_variables(settings))
    assert {"DAGSTER_PG_PASSWORD", "DAGSTER_FILES"} < wanted
    for name, service in read(VARIABLES).items():
        if name != "postgres":
            assert wanted <= service.environment.keys(), name


def test_the_instance_has_the_settings_of_one_machine_but_for_its_storage() -> None:
    one, several = (
        yaml.safe_load(file.read_text("utf-8"))
        for file in (PROJECT / "dagster_home/dagster.yaml", DOCKER / "dagster.yaml")
    )
    del one["event_log_storage"]
    assert {name: several.get(name) for name in one} == one
    assert several["storage"].keys() == {"postgres"}


def test_paths_of_the_image_are_volumes_that_its_user_owns() -> None:
    made = " ".join(instruction.rest for instruction in stages()[-1].all("RUN"))
    for name, service in read(VARIABLES).items():
        if name != "postgres":
            assert all(target in made for target in service.volumes), name


def _variables(value: Any) -> list[str]:
    if isinstance(value, dict):
        if value.keys() == {"env"}:
            return [value["env"]]
        return [name for entry in value.values() for name in _variables(entry)]
    return [name for entry in value for name in _variables(entry)] if isinstance(value, list) else []
