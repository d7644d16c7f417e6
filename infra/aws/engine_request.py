"""What the engine is asked: one JSON object on its stdin. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ACTIONS = ("preview", "up", "preview-destroy", "destroy", "drift", "outputs", "export")
MAKING = ("preview", "up")
"""Actions that begin a stack which is not there yet."""


@dataclass(frozen=True)
class Request:
    """`backend` is a URL (s3://…, file://…); empty: what the environment says. `targets` are URNs;
    none: everything. `keep_data` leaves protected resources out of a destruction."""

    topology: str
    work_dir: Path
    backend: str = ""
    secrets_provider: str = ""
    targets: tuple[str, ...] = ()
    message: str = ""
    keep_data: bool = False
    may_create: bool = False

    def document(self) -> dict[str, Any]:
        return {
            "topology": self.topology,
            "workDir": str(self.work_dir),
            "backend": self.backend,
            "secretsProvider": self.secrets_provider,
            "targets": list(self.targets),
            "message": self.message,
            "keepData": self.keep_data,
            "mayCreate": self.may_create,
        }

    @staticmethod
    def read(given: Mapping[str, Any]) -> Request:
        return Request(
            topology=given["topology"],
            work_dir=Path(given["workDir"]),
            backend=given["backend"],
            secrets_provider=given["secretsProvider"],
            targets=tuple(given["targets"]),
            message=given["message"],
            keep_data=given["keepData"],
            may_create=given["mayCreate"],
        )
