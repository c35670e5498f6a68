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


@dataclass
class S3Server:
    """Moto behind a plain server.

    One request at a time: whether a condition holds and what follows from it are then one step, as S3 has it, which
    moto's own threads do not promise.

    Attributes
    ----------
    requests
        Method and kind (``GET``, ``LIST``, …) with the key, in order.
    before
        Called with method and URL before a request is answered; what it raises ends the connection.
    """

    requests: list[tuple[str, str]] = field(default_factory=list)
    before: Callable[[str, str], None] | None = None
    bucket: str = ""
    _numbers: Iterator[int] = field(default_factory=itertools.count, repr=False)

    def __enter__(self) -> S3Server:
        from moto.moto_server.werkzeug_app import DomainDispatcherApplication, MotoRequestHandler, create_backend_app
        from werkzeug.serving import make_server

        application = DomainDispatcherApplication(create_backend_app)

        def noting(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
            method, query = environ["REQUEST_METHOD"], environ.get("QUERY_STRING", "")
            path = urllib.parse.unquote(environ["PATH_INFO"])
            self.requests.append((_kind(method, query), path))
            if self.before is not None:
                self.before(method, f"{path}?{query}")
            return application(environ, start_response)

        self._server = make_server("127.0.0.1", 0, noting, request_handler=MotoRequestHandler)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

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
        import boto3

        self.bucket = f"results-{next(self._numbers)}"
        boto3.client("s3", endpoint_url=self.url, region_name="us-east-1").create_bucket(Bucket=self.bucket)

    @property
    def root(self) -> str:
        """A data root in the bucket."""
        return f"s3://{self.bucket}/team/data"

    def counted(self) -> Counter[str]:
        """Requests since the last call, by kind."""
        found = Counter(kind for kind, _ in self.requests)
        self.requests.clear()
        return found


def _kind(method: str, query: str) -> str:
    if method == "GET" and "list-type" in query:
        return "LIST"
    if method == "POST" and query.startswith("delete"):
        return "DELETE"
    return method
