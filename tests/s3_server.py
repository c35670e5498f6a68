"""An S3 server in this process that answers one request after the other and says which ones it got."""

from __future__ import annotations

import itertools
import threading
import urllib.parse
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any

_SIGNED = {"Authorization": "AWS4-HMAC-SHA256 Credential=testing/20260101/us-east-1/s3/aws4_request"}
Answer = tuple[str, bytes]
"""Status line and body."""


@dataclass
class S3Server:
    """Moto behind a plain server.

    One request at a time: whether a condition holds and what follows from it are then one step, as S3 has it, which
    moto's own threads do not promise.

    Attributes
    ----------
    requests
        Method (``LIST`` for listings, ``DELETE`` also of many at once) and path, in order.
    before
        Given a request's WSGI environment, which it may change, before it is answered; what it returns, if anything,
        is the answer.
    bucket
        The newest one.
    """

    requests: list[tuple[str, str]] = field(default_factory=list)
    before: Callable[[dict[str, Any]], Answer | None] | None = None
    bucket: str = ""
    _numbers: Iterator[int] = field(default_factory=itertools.count, repr=False)

    def __enter__(self) -> S3Server:
        from moto.moto_server.werkzeug_app import DomainDispatcherApplication, MotoRequestHandler, create_backend_app
        from werkzeug.serving import make_server

        self._application = DomainDispatcherApplication(create_backend_app)
        self._server = make_server("127.0.0.1", 0, self._answer, request_handler=MotoRequestHandler)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def _answer(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        self.requests.append((_kind(environ), urllib.parse.unquote(environ["PATH_INFO"])))
        answer = self.before(environ) if self.before is not None else None
        if answer is None:
            return self._application(environ, start_response)
        start_response(answer[0], [("Content-Type", "application/xml"), ("Content-Length", str(len(answer[1])))])
        return [] if environ["REQUEST_METHOD"] == "HEAD" else [answer[1]]

    def handle(self, environ: dict[str, Any]) -> None:
        """Do what a request asks without answering it, as when an answer is lost."""
        list(self._application(environ, lambda *_: None))

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    @property
    def root(self) -> str:
        """A data root in the bucket."""
        return f"s3://{self.bucket}/team/data"

    @property
    def environment(self) -> dict[str, str]:
        """What a client needs to find it."""
        return {
            "AWS_ENDPOINT_URL": self.url,
            "AWS_ACCESS_KEY_ID": "testing",
            "AWS_SECRET_ACCESS_KEY": "testing-secret",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_CONFIG_FILE": "/dev/null",
            "AWS_SHARED_CREDENTIALS_FILE": "/dev/null",
        }

    def make_bucket(self) -> None:
        """Make a new bucket, which becomes `bucket`."""
        self.bucket = f"results-{next(self._numbers)}"
        self._send("PUT", "", b"")

    def put(self, key: str, data: bytes) -> None:
        """Put an object past the network, also while a request is being answered; it is not counted."""
        self._send("PUT", f"/{key}", data)

    def delete(self, key: str) -> None:
        """Delete an object past the network."""
        self._send("DELETE", f"/{key}", b"")

    def _send(self, method: str, key: str, data: bytes) -> None:
        from werkzeug.test import Client

        where = f"/{self.bucket}{urllib.parse.quote(key)}"
        answer = Client(self._application).open(where, method=method, base_url=self.url, data=data, headers=_SIGNED)
        assert answer.status_code in (200, 204), (answer.status, answer.data)

    def counted(self) -> Counter[str]:
        """Requests since the last call, by method."""
        found = Counter(kind for kind, _ in self.requests)
        self.requests.clear()
        return found


def _kind(environ: dict[str, Any]) -> str:
    method, query = environ["REQUEST_METHOD"], environ.get("QUERY_STRING", "")
    if method == "GET" and "list-type" in query:
        return "LIST"
    return "DELETE" if method == "POST" and query.startswith("delete") else str(method)
