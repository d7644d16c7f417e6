"""Backups on this machine: WAL and base backups, sealed, in the object store of another region.

The archiver is a process of its own that must stay small, so importing this package loads nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from infra.local.backups.local import LocalBackups

__all__ = ["LocalBackups"]


def __getattr__(name: str) -> Any:
    if name != "LocalBackups":
        raise AttributeError(name)
    from infra.local.backups.local import LocalBackups

    return LocalBackups
