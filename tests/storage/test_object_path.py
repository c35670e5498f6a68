"""Places in an object store: what names one, what is refused, and that folders stay what they were."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path, PosixPath

import pytest

from simmerge_core.errors import CatalogError, StorageError
from simmerge_core.storage import ObjectPath, located
from simmerge_core.tables import STANDALONE_SCORES, DataRoot

ROOT = Path(__file__).parents[2]


def test_a_url_is_a_place_and_everything_else_a_path_as_it_was() -> None:
    place = located("s3://bucket/team/data/")
    assert isinstance(place, ObjectPath)
    assert (str(place), place.bucket, place.name, place.parts) == (
        "s3://bucket/team/data",
        "bucket",
        "data",
        ("bucket", "team", "data"),
    )
    assert str(place / "a=1" / "part.parquet") == "s3://bucket/team/data/a=1/part.parquet"
    assert place.parent == located("s3://bucket/team")
    assert (place / "x.json").relative_to(place).parts == ("x.json",)
    for text in ("data", "/srv/data", "./s3", "~/data"):
        assert type(located(text)) is PosixPath
        assert located(text) == Path(text)


def test_a_place_is_no_path_of_this_machine() -> None:
    with pytest.raises(TypeError):
        Path(located("s3://bucket/data"))  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        open(located("s3://bucket/data"))  # type: ignore[call-overload]  # noqa: SIM115


@pytest.mark.parametrize("scheme", ["http", "https", "ftp", "memory", "file", "hdfs"])
def test_schemes_without_exclusive_creation_are_refused_by_name(scheme: str) -> None:
    with pytest.raises(StorageError, match=f"under {scheme}://, which cannot create an object exclusively"):
        located(f"{scheme}://bucket/data")


@pytest.mark.parametrize(
    "rest", ["", "/data", "bucket//data", "bucket/../other", "bucket/./data", "bucket/data?version=1", "bucket/a*"]
)
def test_urls_that_name_no_prefix_are_refused(rest: str) -> None:
    with pytest.raises(StorageError, match="is named <bucket>/<prefix>"):
        located(f"s3://{rest}")


def test_credentials_in_a_url_are_refused_and_not_repeated() -> None:
    with pytest.raises(StorageError) as told:
        located("s3://AKIAKEY:verysecret@bucket/data")
    assert "verysecret" not in str(told.value)
    assert "AKIAKEY" not in str(told.value)


@pytest.mark.parametrize("id", ["..", "../x", "a/b", "/etc", ""])
def test_ids_cannot_leave_the_prefix(id: str) -> None:
    with pytest.raises(CatalogError):
        DataRoot("s3://bucket/data").path(STANDALONE_SCORES, checkpoint=id, task="math")


def test_a_folder_as_data_root_imports_nothing_of_object_stores(tmp_path: Path) -> None:
    code = (
        "import sys, polars as pl\n"
        "from simmerge_core.files import write_json\n"
        "from simmerge_core.tables import TABLES, DataRoot\n"
        "root = DataRoot(sys.argv[1])\n"
        "for table in TABLES.values(): root.scan(table).collect()\n"
        "write_json(root.root / 'a.json', 1)\n"
        "print([m for m in ('fsspec', 's3fs', 'botocore', 'aiohttp') if m in sys.modules])"
    )
    run = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)],
        capture_output=True,
        text=True,
        check=True,
        env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"},
    )
    assert run.stdout.strip() == "[]"


def test_without_the_extra_one_sentence_says_what_to_install(tmp_path: Path) -> None:
    code = (
        "import sys\n"
        "sys.modules['s3fs'] = None\n"
        "from simmerge_cli.app import app\n"
        "app(['tables', '--data', 's3://bucket/data'])"
    )
    run = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
        env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"},
    )
    assert run.returncode == 2
    assert run.stderr.strip() == (
        "Error: A data root under s3:// needs packages that are not installed: pip install 'simmerge[s3]'."
    )


def test_a_url_with_one_slash_is_not_taken_for_a_folder() -> None:
    with pytest.raises(StorageError, match=r"write s3://bucket/x, or \./s3:/bucket/x"):
        located("s3:/bucket/x")
    for folder in ("./s3:/bucket/x", "C:/data", "runs:1/x", "/s3:/x"):
        assert located(folder) == Path(folder)
