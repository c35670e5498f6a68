"""Objects on a local S3 server: whole or absent, created once, fetched once, and what is said when nothing works."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import urllib.parse
from pathlib import Path
from typing import Any

import pytest
from s3_server import Answer, S3Server

from simmerge_core.errors import StorageError
from simmerge_core.files import replaced_folder, write_atomically, write_json, write_json_once
from simmerge_core.storage import (
    ObjectPath,
    check_data_root,
    created,
    is_complete,
    kept_listings,
    listed,
    local_copy,
    local_folder,
    located,
    moved_folder,
    removed,
    scratch_folder,
)
from simmerge_core.storage import filesystem as filesystem_module
from simmerge_core.storage import writing as writing_module
from simmerge_core.storage.copies import copies_folder
from simmerge_core.storage.eviction import delete_unused

pytestmark = pytest.mark.s3

WORKER = Path(__file__).with_name("storage_worker.py")
ROOT = Path(__file__).parents[2]


def place(s3: S3Server, *parts: str) -> ObjectPath:
    found = located(s3.root)
    assert isinstance(found, ObjectPath)
    return found.joinpath(*parts)


def worker(*arguments: str) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(
        [sys.executable, str(WORKER), *arguments],
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def key_of(s3: S3Server, path: ObjectPath) -> str:
    return path.key.removeprefix(f"{s3.bucket}/")


# --- one object


def test_a_reader_sees_whole_versions_while_a_writer_overwrites(s3: S3Server) -> None:
    path, size = place(s3, "table", "part.parquet"), 200_000
    stop, failed = threading.Event(), []

    def overwrite() -> None:
        try:
            for n in range(40):
                with write_atomically(path) as temporary:
                    temporary.write_bytes(bytes([n]) * size)
        except Exception as error:
            failed.append(error)
        finally:
            stop.set()

    writer = threading.Thread(target=overwrite)
    writer.start()
    seen = []
    while not stop.is_set():
        for read in (path.read_bytes, lambda: local_copy(path).read_bytes()):
            try:
                found = read()
            except FileNotFoundError:
                continue  # before the first version
            assert len(found) == size
            assert len(set(found)) == 1
            seen.append(found[0])
    writer.join()
    assert not failed
    assert seen == sorted(seen)
    assert local_copy(path).read_bytes() == bytes([39]) * size


def test_an_object_that_is_replaced_while_its_parts_are_fetched_is_fetched_again(
    s3: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(filesystem_module._OPTIONS["s3"], "default_block_size", 1000)
    path = place(s3, "big.bin")
    s3.put(key_of(s3, path), b"o" * 5000)
    ranges = []

    def replace_between(environ: dict[str, Any]) -> None:
        if "HTTP_RANGE" in environ and environ["PATH_INFO"].endswith("big.bin"):
            ranges.append(environ["HTTP_RANGE"])
            if len(ranges) == 3:
                s3.put(key_of(s3, path), b"n" * 5000)

    s3.before = replace_between
    assert local_copy(path).read_bytes() == b"n" * 5000
    assert len(ranges) > 5  # a second round of them


@pytest.mark.parametrize("point", ["whole", "second part", "completion"])
def test_a_killed_upload_leaves_the_old_object(s3: S3Server, point: str) -> None:
    path, size = place(s3, "weights.safetensors"), (1 << 20 if point == "whole" else 11 << 20)
    s3.put(key_of(s3, path), b"old")
    reached, go_on = threading.Event(), threading.Event()

    def stall(environ: dict[str, Any]) -> Answer | None:
        query = urllib.parse.parse_qs(environ.get("QUERY_STRING", ""))
        at = {
            "whole": environ["REQUEST_METHOD"] == "PUT" and not query,
            "second part": query.get("partNumber") == ["2"],
            "completion": environ["REQUEST_METHOD"] == "POST" and "uploadId" in query,
        }[point]
        if not at:
            return None
        reached.set()
        assert go_on.wait(60)
        return "500 Internal Server Error", b""

    s3.before = stall
    process = worker("overwrite", str(path), str(size))
    assert reached.wait(60)
    process.kill()
    process.wait()
    s3.before = None
    go_on.set()
    assert path.read_bytes() == b"old"
    assert len(list((scratch_folder() / "making").iterdir())) == 1  # what it was about to upload
    with write_atomically(path) as temporary:  # and nothing is in the way of the next writer
        temporary.write_bytes(b"new")
    assert local_copy(path).read_bytes() == b"new"
    assert list((scratch_folder() / "making").iterdir()) == []


def test_a_failed_writer_uploads_nothing(s3: S3Server) -> None:
    path = place(s3, "a.json")
    with pytest.raises(RuntimeError), write_atomically(path) as temporary:
        temporary.write_bytes(b"half")
        raise RuntimeError
    assert s3.counted() == {}
    assert list((scratch_folder() / "making").iterdir()) == []


# --- exclusive creation


def test_of_several_processes_that_create_one_wins_each_object(s3: S3Server) -> None:
    count, folder = 12, place(s3, "log")
    processes = [worker("create", str(folder), f"process {n}", str(count)) for n in range(3)]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    won = {}
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    for number, process in enumerate(processes):
        out, _ = process.communicate(timeout=120)
        for n in map(int, out.split()):
            assert n not in won, "two processes created one object"
            won[n] = number
    assert sorted(won) == list(range(count))
    for n, number in won.items():
        assert (folder / f"{n}.json").read_bytes() == f"process {number}".encode()


def test_what_is_created_is_never_replaced(s3: S3Server) -> None:
    path = place(s3, "requests", "first.json")
    assert write_json_once(path, {"asked": 1})
    assert not write_json_once(path, {"asked": 2})
    assert '"asked": 1' in path.read_text()


def test_a_store_that_does_not_keep_to_it_is_refused(s3: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    def forget(environ: dict[str, Any]) -> None:
        environ.pop("HTTP_IF_NONE_MATCH", None)

    s3.before = forget
    monkeypatch.setattr(writing_module, "_exclusive", set())
    for attempt in (
        lambda: created(place(s3, "a.json"), b"x"),
        lambda: check_data_root(place(s3), writing=True),
    ):
        with pytest.raises(StorageError, match=f"s3://{s3.bucket} does not keep to exclusive creation"):
            attempt()
    s3.before = None
    assert listed(place(s3)) == []  # what was tried is gone


def test_a_conflict_of_two_conditional_writes_is_asked_again(s3: S3Server) -> None:
    path, answers = place(s3, "a.json"), [1, 1]
    check_data_root(place(s3), writing=True)

    def conflict(environ: dict[str, Any]) -> Answer | None:
        if not environ["PATH_INFO"].endswith("a.json") or not answers:
            return None
        answers.pop()
        return "409 Conflict", _error("ConditionalRequestConflict")

    s3.before = conflict
    assert created(path, b"mine")
    assert path.read_bytes() == b"mine"


# --- folders


def _write_folder(path: ObjectPath, text: str, *names: str) -> None:
    with replaced_folder(path, last="config.json") as temporary:
        for name in ("config.json", *names):
            (temporary / name).write_text(f"{text} {name}")


def test_a_folder_counts_only_when_its_last_object_stands(s3: S3Server) -> None:
    path = place(s3, "merged", "merge_request=a")
    order = []

    def note(environ: dict[str, Any]) -> None:
        method, name = environ["REQUEST_METHOD"], environ["PATH_INFO"].rsplit("/", 1)[1]
        if method in ("PUT", "DELETE"):
            order.append((method, name))
            assert (name == "config.json") or method == "DELETE" or ("PUT", "config.json") not in order

    s3.before = note
    _write_folder(path, "old", "weights", "extra")
    assert order[-1] == ("PUT", "config.json")
    order.clear()
    _write_folder(path, "new", "weights")
    assert order[0] == ("DELETE", "config.json")
    assert order[-1] == ("PUT", "config.json")
    s3.before = None
    with local_folder(path, last="config.json") as copy:
        assert {f.name: f.read_text() for f in copy.iterdir()} == {
            "config.json": "new config.json",
            "weights": "new weights",
        }


def test_a_folder_whose_writer_ended_half_way_is_absent(s3: S3Server) -> None:
    path = place(s3, "selector", "paper")
    _write_folder(path, "old", "weights")

    def refuse(environ: dict[str, Any]) -> Answer | None:
        put = environ["REQUEST_METHOD"] == "PUT" and environ["PATH_INFO"].endswith("config.json")
        return ("403 Forbidden", _error("AccessDenied")) if put else None

    s3.before = refuse
    with pytest.raises(PermissionError):
        _write_folder(path, "new", "weights")
    s3.before = None
    assert (path / "weights").read_text() == "new weights"
    assert not is_complete(path, "config.json")
    with pytest.raises(FileNotFoundError, match=r"config\.json is missing"), local_folder(path, last="config.json"):
        pass
    _write_folder(path, "third", "weights")
    assert is_complete(path, "config.json")


def test_a_folder_that_is_replaced_while_it_is_fetched_is_fetched_again(s3: S3Server) -> None:
    path, done = place(s3, "f"), []
    _write_folder(path, "old", "a", "b")

    def replace(environ: dict[str, Any]) -> None:
        if environ["REQUEST_METHOD"] == "GET" and "list-type" not in environ["QUERY_STRING"] and not done:
            done.append(True)
            for name in ("a", "b", "config.json"):
                s3.put(key_of(s3, path / name), f"new {name}".encode())

    s3.before = replace
    with local_folder(path, last="config.json") as copy:
        assert sorted(f.read_text() for f in copy.iterdir()) == ["new a", "new b", "new config.json"]
    assert not copy.exists()


def test_a_folder_is_moved_with_its_first_object_first(s3: S3Server) -> None:
    source, target = place(s3, "bandit", "a"), place(s3, "bandit", "a.before-1")
    for name in ("warm/bandit.json", "log/0.parquet", "log/1.parquet"):
        s3.put(key_of(s3, source / name), name.encode())
    s3.counted()
    moved_folder(source, target, first="warm/bandit.json")
    deletes = [path for kind, path in s3.requests if kind == "DELETE"]
    copies = [path for kind, path in s3.requests if kind == "PUT"]
    assert deletes[0].endswith("/a/warm/bandit.json")
    assert s3.requests.index(("DELETE", deletes[0])) < s3.requests.index(("PUT", copies[1]))
    assert listed(source) == []
    assert [str(f.path.relative_to(target)) for f in listed(target)] == [
        "log/0.parquet",
        "log/1.parquet",
        "warm/bandit.json",
    ]
    removed(target)
    assert listed(place(s3)) == []


# --- requests


def test_listing_takes_one_request_for_each_thousand(s3: S3Server) -> None:
    for n in range(1100):
        s3.put(f"team/data/t/a={n}/b=1/part.parquet", b"")
    s3.counted()
    assert len(listed(place(s3, "t"))) == 1100
    assert s3.counted() == {"LIST": 2}
    assert len(list(place(s3, "t").glob("a=*/b=1/part.parquet"))) == 1100
    assert s3.counted() == {"LIST": 2}


def test_a_content_is_fetched_once(s3: S3Server) -> None:
    path = place(s3, "probe.safetensors")
    write_json(path, 1)
    s3.counted()
    first = local_copy(path)
    assert s3.counted() == {"HEAD": 1, "GET": 1}
    assert local_copy(path) == first
    assert s3.counted() == {"HEAD": 1}
    write_json(path, 2)
    assert local_copy(path).read_text() == "2\n"
    assert first.read_text() == "1\n"  # who still reads the old one goes on


def test_kept_listings_ask_once_whatever_is_asked(s3: S3Server) -> None:
    for n in range(30):
        s3.put(f"team/data/t/a={n}/part.parquet", b"x")
    s3.counted()
    with kept_listings(place(s3)):
        found = [place(s3, "t", f"a={n}", "part.parquet").is_file() for n in range(60)]
        assert [len(listed(place(s3, "t", f"a={n}"))) for n in (0, 40)] == [1, 0]
    assert found == [True] * 30 + [False] * 30
    assert s3.counted() == {"LIST": 1}
    s3.put("team/data/t/a=50/part.parquet", b"x")
    assert place(s3, "t", "a=50", "part.parquet").is_file()


def test_the_cache_gives_up_what_was_used_least_recently(s3: S3Server) -> None:
    copies = []
    for n in range(4):
        s3.put(f"team/data/{n}.bin", bytes(100))
        copies.append(local_copy(place(s3, f"{n}.bin")))
        os.utime(copies[-1], (1000.0 + n, 1000.0))
    assert delete_unused(copies_folder(), 250, now=1000.0) == 0  # all within the last hour
    os.utime(copies[0], (2000.0, 1000.0))  # used again
    assert delete_unused(copies_folder(), 250, now=9000.0) == 200
    assert [copy.exists() for copy in copies] == [True, False, False, True]
    assert local_copy(place(s3, "1.bin")).read_bytes() == bytes(100)


# --- what is said before any work


def test_a_bucket_that_is_not_there_is_named(s3: S3Server) -> None:
    with pytest.raises(StorageError, match=r"there is no bucket s3://nowhere; make it first\.$"):
        check_data_root(located("s3://nowhere/data"), writing=False)


@pytest.mark.parametrize("writing", [False, True])
def test_denied_access_is_said_with_the_bucket(s3: S3Server, writing: bool) -> None:
    s3.before = lambda environ: ("403 Forbidden", _error("AccessDenied"))
    with pytest.raises(StorageError, match=f"access to bucket s3://{s3.bucket} was denied"):
        check_data_root(place(s3), writing=writing)


def test_writing_may_be_denied_where_reading_is_not(s3: S3Server) -> None:
    s3.before = lambda e: ("403 Forbidden", _error("AccessDenied")) if e["REQUEST_METHOD"] == "PUT" else None
    check_data_root(place(s3), writing=False)
    with pytest.raises(StorageError, match="list, get, put and delete"):
        check_data_root(place(s3), writing=True)


def test_an_endpoint_that_does_not_answer_is_said_without_credentials(
    s3: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    from s3fs import S3FileSystem

    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    monkeypatch.setattr(S3FileSystem, "retries", 1)
    S3FileSystem.clear_instance_cache()
    with pytest.raises(
        StorageError, match=r"cannot be reached \(EndpointConnectionError\): check AWS_ENDPOINT"
    ) as told:
        check_data_root(place(s3), writing=False)
    assert str(place(s3)) in str(told.value)
    assert "testing" not in str(told.value)


def test_an_endpoint_that_is_no_address_is_said(s3: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    from s3fs import S3FileSystem

    monkeypatch.setenv("AWS_ENDPOINT_URL", "rubbish")
    S3FileSystem.clear_instance_cache()
    with pytest.raises(StorageError, match=r"cannot be reached: AWS_ENDPOINT_URL is no address \(.*rubbish"):
        check_data_root(place(s3), writing=False)


def test_a_cache_folder_that_cannot_be_made_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SIMMERGE_CACHE", "/dev/null")
    with pytest.raises(StorageError, match=r"^Cache folder /dev/null cannot be made \(.*\): let SIMMERGE_CACHE name"):
        scratch_folder()


def _error(code: str) -> bytes:
    return f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>no</Message></Error>".encode()
