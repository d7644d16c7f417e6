"""What a service has to be told beside its databases: secrets of others, by service."""

from __future__ import annotations

NEEDS = {
    "auth": ("tokenKey",),
    "payments": ("gatewayKey", "webhookSecret", "objectsKey", "objectsSecret"),
    "notifications": ("objectsKey", "objectsSecret", "smtpUser", "smtpPassword"),
}
EXTERNAL = ("gatewayKey", "webhookSecret", "smtpUser", "smtpPassword")
