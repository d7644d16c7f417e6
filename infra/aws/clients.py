"""How AWS is asked: clients by service and region, and what its answers mean here.

boto3 is synchronous, so each call runs in a thread. Throttling and broken connections are tried
again by botocore's standard mode; what is left becomes a `Problem` that says what to type next.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal
from urllib.parse import urlsplit

from runtime.clock import Clock, SystemClock
from runtime.errors import (
    Forbidden,
    Invalid,
    NotFound,
    OperationFailed,
    Problem,
    Refused,
    Unauthorized,
    Unavailable,
)

JSON = dict[str, Any]
Mode = Literal["applied", "emulated"]
CONNECT_SECONDS, READ_SECONDS, ATTEMPTS = 3.0, 20.0, 5
AMAZON = (".amazonaws.com", ".amazonaws.com.cn", ".api.aws")
LOGIN = "aws sso login, or set AWS_PROFILE; then: aws sts get-caller-identity"
# Route 53 is one service for the whole world; its control plane stands in us-east-1.
GLOBAL_REGION = "us-east-1"

UNKNOWN_CALLER = {
    "ExpiredToken",
    "ExpiredTokenException",
    "InvalidClientTokenId",
    "InvalidAccessKeyId",
    "SignatureDoesNotMatch",
    "UnrecognizedClientException",
    "AuthFailure",
}
BUSY = {
    "Throttling",
    "ThrottlingException",
    "RequestLimitExceeded",
    "SlowDown",
    "PriorRequestNotComplete",
}


@dataclass
class Cloud:
    """`endpoints` has a URL for a service ("rds"), and for every other one under "*"; none: AWS.

    `pause` is how long the verbs wait between two looks at what they have begun, in seconds;
    `attempts` is how often a throttled or lost request is sent at most.
    """

    endpoints: Mapping[str, str] = field(default_factory=dict)
    pause: float = 5.0
    attempts: int = ATTEMPTS
    clock: Clock = field(default_factory=SystemClock)
    _session: Any = field(default=None, repr=False)
    _clients: dict[tuple[str, str], Any] = field(default_factory=dict, repr=False)
    _making: threading.Lock = field(default_factory=threading.Lock, repr=False)

    @property
    def mode(self) -> Mode:
        """What evidence from here is worth: "applied" only when every address is Amazon's, also
        those that the environment names (AWS_ENDPOINT_URL)."""
        urls = [*self.endpoints.values(), self.client("sts", GLOBAL_REGION).meta.endpoint_url]
        urls += [client.meta.endpoint_url for client in list(self._clients.values())]
        hosts = [urlsplit(url).hostname or "" for url in urls]
        return "applied" if all(host.endswith(AMAZON) for host in hosts) else "emulated"

    def client(self, service: str, region: str) -> Any:
        """The boto3 client, made once. Raises `Refused` without boto3."""
        key = (service, region)
        with self._making:
            if key not in self._clients:
                endpoint = self.endpoints.get(service, self.endpoints.get("*"))
                # One session: it keeps the models of the services, which are large.
                self._session = self._session or _session()
                self._clients[key] = _make(self._session, service, region, endpoint, self.attempts)
            return self._clients[key]

    async def call(self, service: str, region: str, operation: str, /, **asked: Any) -> JSON:
        """One request, such as `call("rds", "us-west-2", "describe_db_clusters")`.

        Raises `Unauthorized`, `Forbidden`, `NotFound`, `Refused` (the thing is in no state for
        this), `Invalid`, `Unavailable` or `OperationFailed`.
        """
        return await asyncio.to_thread(self._call, service, region, operation, asked)

    async def pages(
        self, service: str, region: str, operation: str, key: str, /, **asked: Any
    ) -> list[Any]:
        """All items under `key` of all pages. Raises as `call`."""
        return await asyncio.to_thread(self._pages, service, region, operation, key, asked)

    def _call(self, service: str, region: str, operation: str, asked: JSON) -> JSON:
        try:
            answer: JSON = getattr(self.client(service, region), operation)(**asked)
        except Problem:
            raise
        except Exception as error:
            raise explain(error, service, region, operation) from error
        return answer

    def _pages(self, service: str, region: str, operation: str, key: str, asked: JSON) -> list[Any]:
        try:
            client = self.client(service, region)
            pages = client.get_paginator(operation).paginate(**asked)
            return [item for page in pages for item in page.get(key, [])]
        except Problem:
            raise
        except Exception as error:
            raise explain(error, service, region, operation) from error


def _session() -> Any:
    try:
        import boto3
    except ImportError:
        raise Refused(
            "boto3 is not installed: AWS cannot be asked.", hint="pip install 'regionctl[aws]'"
        ) from None
    return boto3.session.Session()


def _make(session: Any, service: str, region: str, endpoint: str | None, attempts: int) -> Any:
    from botocore.config import Config

    config = Config(
        connect_timeout=CONNECT_SECONDS,
        read_timeout=READ_SECONDS,
        retries={"mode": "standard", "total_max_attempts": attempts},
        user_agent_extra="regionctl",
    )
    return session.client(service, region_name=region, endpoint_url=endpoint, config=config)


def explain(error: Exception, service: str, region: str, operation: str) -> Problem:
    """What botocore raised, as what it means to whoever asked; an unknown exception as a failure.

    Codes: "Common errors" of each service's API reference.
    """
    from botocore import exceptions as kinds

    asked = f"{service} {operation} in {region}"
    if isinstance(error, kinds.ClientError):
        return _refusal(error, asked)
    if isinstance(error, kinds.NoCredentialsError | kinds.PartialCredentialsError):
        return Unauthorized(f"There are no AWS credentials for {asked}.", hint=LOGIN)
    if isinstance(error, kinds.TokenRetrievalError | kinds.UnauthorizedSSOTokenError):
        return Unauthorized(f"The AWS login has expired ({asked}).", hint=LOGIN)
    if isinstance(error, kinds.ParamValidationError | kinds.ProfileNotFound):
        return Invalid(f"{asked}: {error}")
    if isinstance(error, kinds.HTTPClientError | kinds.ConnectionError):
        return Unavailable(
            f"{asked}: AWS does not answer ({type(error).__name__}).",
            hint="https://health.aws.amazon.com; a lost region: regionctl failover plan REGION",
            extra={"region": region},
        )
    return OperationFailed(f"{asked}: {error}")


def _refusal(error: Any, asked: str) -> Problem:
    code = str(error.response.get("Error", {}).get("Code", ""))
    said = str(error.response.get("Error", {}).get("Message", "")).rstrip(".")
    status = int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 400))
    detail, extra = f"{asked}: {said or code} ({code}).", {"code": code, "request": _request(error)}
    if code in UNKNOWN_CALLER:
        return Unauthorized(detail, hint=LOGIN, extra=extra)
    if code.startswith(("AccessDenied", "UnauthorizedOperation", "NotAuthorized")):
        return Forbidden(
            detail, hint="The role that regionctl runs as needs this action.", extra=extra
        )
    if code in BUSY or status >= 500:
        return Unavailable(detail, hint="AWS is busy or failing: try again.", extra=extra)
    if "NotFound" in code or code.startswith(("NoSuch", "404")):
        return NotFound(detail, hint="regionctl infra plan shows what should exist", extra=extra)
    if "State" in code or code.startswith(("ResourceInUse", "Conflict")):
        return Refused(
            detail, hint="Something else is being done to it: wait, then try again.", extra=extra
        )
    if "Quota" in code or "LimitExceeded" in code:
        return Refused(detail, hint="https://console.aws.amazon.com/servicequotas", extra=extra)
    return OperationFailed(detail, extra=extra)


def _request(error: Any) -> str:
    return str(error.response.get("ResponseMetadata", {}).get("RequestId", ""))
