"""What notifications answer on the wire."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel


class Notification(BaseModel):
    kind: str
    recipient: str
    status: Literal["sent", "failed", "skipped"]
    reason: str | None
    created_at: str


class NotificationList(BaseModel):
    notifications: list[Notification]
