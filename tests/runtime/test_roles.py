"""What the database lets each service do, whatever that service's process was made to try."""

from __future__ import annotations

from collections.abc import Mapping

import asyncpg
import pytest

from runtime import checks
from runtime.migrations.roles import GROUP, ROLES
from tests.runtime.conftest import Platform
from tests.runtime.servers import PASSWORD, Postgres

pytestmark = pytest.mark.process

OTHERS_THAN = {role: tuple(each for each in ROLES if each != role) for role in ROLES}
BUT_AUTH_AND_USERS = ("orders", "payments", "inventory", "notifications")
EVENT = "(user_id, event_id, kind, payload, created_at) VALUES (1, 1, 'x', '{}', now())"
AUDIT = (
    "INSERT INTO audit_log (action, outcome, actor, subject, address, request_id) "
    "VALUES ('login', 'allowed', 'x', 'x', 'x', 'x')"
)
OWN_WRITE = {
    "auth": AUDIT,
    "users": AUDIT,
    "orders": f"INSERT INTO outbox {EVENT}",
    "payments": f"INSERT INTO outbox {EVENT}",
    "inventory": f"INSERT INTO outbox {EVENT}",
    "notifications": "INSERT INTO notifications (user_id, event_id, kind, recipient, status) "
    "VALUES (1, 1, 'x', 'x', 'sent')",
}
# Statement by statement, the roles that it is refused to.
OF_CATALOG: Mapping[str, tuple[str, ...]] = {
    "INSERT INTO signing_keys VALUES ('k', '{}', 's', now(), now(), now())": OTHERS_THAN["auth"],
    "SELECT sealed FROM signing_keys": OTHERS_THAN["auth"],
    "UPDATE signing_keys SET public_jwk = '{}'": ROLES,
    "DELETE FROM signing_keys": OTHERS_THAN["auth"],
    "SELECT secret_hash FROM oauth_clients": OTHERS_THAN["auth"],
    "INSERT INTO oauth_clients VALUES ('x', '', 'admin')": ROLES,
    "UPDATE oauth_clients SET role = 'admin'": ROLES,
    "DELETE FROM revocations": OTHERS_THAN["auth"],
    "UPDATE revocations SET expires_at = now()": ROLES,
    "INSERT INTO revocations VALUES (1, now(), now())": BUT_AUTH_AND_USERS,
    "SELECT FROM audit_log WHERE id > 0": OTHERS_THAN["auth"],
    "UPDATE audit_log SET outcome = 'denied'": ROLES,
    "DELETE FROM audit_log": ROLES,
    "TRUNCATE audit_log": ROLES,
    AUDIT: ("orders", "payments", "notifications"),
    "INSERT INTO audit_log (at, action, outcome, actor, subject, address, request_id) "
    "VALUES (now(), 'login', 'allowed', 'x', 'x', 'x', 'x')": ROLES,
    "SELECT email FROM emails": BUT_AUTH_AND_USERS,
    "SELECT request_hash FROM emails": OTHERS_THAN["users"],
    "UPDATE emails SET user_id = 1": ROLES,
    "UPDATE emails SET state = 'reserved'": OTHERS_THAN["users"],
    "UPDATE products SET price_cents = 1": OTHERS_THAN["inventory"],
    "UPDATE products SET stock = 1": OTHERS_THAN["inventory"],
    "SELECT stock FROM products": OTHERS_THAN["inventory"],
    "UPDATE stock_movements SET outcome = 'returned'": OTHERS_THAN["inventory"],
    "UPDATE stock_movements SET quantity = 1": ROLES,
    f"INSERT INTO outbox {EVENT}": OTHERS_THAN["inventory"],
    "UPDATE regionctl.slot_owner SET epoch = 9": ROLES,
    "SET SESSION AUTHORIZATION regionctl": ROLES,
    "SET ROLE regionctl": ROLES,
    "CREATE TABLE mine ()": ROLES,
    "CREATE ROLE mine": ROLES,
    "ALTER TABLE audit_log DISABLE TRIGGER ALL": ROLES,
}
OF_SHARDS: Mapping[str, tuple[str, ...]] = {
    "UPDATE users SET role = 'admin'": OTHERS_THAN["users"],
    "UPDATE users SET password_hash = ''": BUT_AUTH_AND_USERS,
    "UPDATE users SET email = ''": ROLES,
    "SELECT password_hash FROM users": BUT_AUTH_AND_USERS,
    "SELECT email FROM users": ("auth", "orders", "payments", "inventory"),
    "INSERT INTO users (user_id, email, name, idempotency_key, request_hash, created_at, role) "
    "VALUES (1, '', '', '', '', now(), 'admin')": ROLES,
    "DELETE FROM users": ROLES,
    "SELECT token_hash FROM sessions": OTHERS_THAN["auth"],
    "INSERT INTO sessions (user_id, id, client_id, token_hash, created_at, expires_at) "
    "VALUES (1, 1, '', '', now(), now())": OTHERS_THAN["auth"],
    "UPDATE sessions SET expires_at = now()": OTHERS_THAN["auth"],
    "DELETE FROM sessions": OTHERS_THAN["auth"],
    "UPDATE sessions SET revoked_at = NULL": BUT_AUTH_AND_USERS,
    "UPDATE orders SET status = 'confirmed'": OTHERS_THAN["orders"],
    "UPDATE orders SET total_cents = 1": ROLES,
    "DELETE FROM orders": ROLES,
    "SELECT keywords FROM orders": OTHERS_THAN["orders"],
    "UPDATE order_items SET quantity = 1": ROLES,
    "UPDATE payments SET status = 'captured'": OTHERS_THAN["payments"],
    "SELECT status FROM payments": OTHERS_THAN["payments"],
    "UPDATE notifications SET status = 'sent'": ROLES,
    "SELECT recipient FROM notifications": OTHERS_THAN["notifications"],
    f"INSERT INTO outbox {EVENT}": ("auth", "users", "inventory", "notifications"),
    "UPDATE outbox SET payload = '{}'": ROLES,
    "SELECT payload FROM outbox": OTHERS_THAN["orders"],
    "UPDATE regionctl.slot_owner SET state = 'owned'": ROLES,
    "INSERT INTO regionctl.fence VALUES (1, 'fwd', 1)": ROLES,
    "UPDATE regionctl.handover SET attempt = 1": ROLES,
}


async def not_refused(
    server: Postgres, role: str, tried: Mapping[str, tuple[str, ...]]
) -> set[str]:
    """Of the statements that `role` must not run, those that were refused for no lack of right."""
    connection: checks.Database = await asyncpg.connect(**server.dsn(role))
    passed = set()
    try:
        for statement in (each for each, roles in tried.items() if role in roles):
            try:
                async with connection.transaction():
                    await connection.execute("SELECT regionctl.guard(0, 1)")
                    await connection.execute(statement)
                    passed.add(statement)
            except asyncpg.InsufficientPrivilegeError:
                pass
            except asyncpg.PostgresError as error:
                passed.add(f"{statement}: {error}")
    finally:
        await connection.close()
    return passed


@pytest.mark.parametrize("role", ROLES)
async def test_a_service_is_refused_what_its_own_sql_does_not_do(
    platform: Platform, role: str
) -> None:
    assert await not_refused(platform.catalog, role, OF_CATALOG) == set()
    assert await not_refused(platform.s1, role, OF_SHARDS) == set()


@pytest.mark.parametrize("role", ROLES)
async def test_a_write_of_any_service_needs_the_guard(platform: Platform, role: str) -> None:
    server = platform.catalog if role in ("auth", "users", "inventory") else platform.s1
    connection: checks.Database = await asyncpg.connect(**server.dsn(role))
    try:
        with pytest.raises(asyncpg.PostgresError) as refused:
            await connection.execute(OWN_WRITE[role])
        assert refused.value.sqlstate == "RG003"
    finally:
        await connection.close()


async def test_every_service_reads_public_keys_and_revocations(platform: Platform) -> None:
    for role in ROLES:
        connection: checks.Database = await asyncpg.connect(**platform.catalog.dsn(role))
        try:
            await connection.execute("SELECT kid, public_jwk, expires_at FROM signing_keys")
            await connection.execute("SELECT session_id, expires_at FROM revocations")
        finally:
            await connection.close()


async def test_nobody_logs_in_as_the_group(platform: Platform) -> None:
    with pytest.raises(asyncpg.InvalidAuthorizationSpecificationError):
        await asyncpg.connect(**platform.s1.dsn(GROUP) | {"password": PASSWORD})
