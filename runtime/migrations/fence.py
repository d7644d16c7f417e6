"""The fence that every database has: who owns a slot here, under which epoch.

A writer calls `regionctl.guard(slot, epoch)` first in its transaction. The function takes a shared
lock on the slot and then reads the owner with a fresh snapshot, so whoever flips the owner and
waits for the lock's holders knows that no write of the old epoch is left.
"""

from __future__ import annotations

# Catches code that forgot the guard; the superuser and replication pass.
REFUSE_UNGUARDED = """
    CREATE OR REPLACE FUNCTION regionctl.refuse_unguarded() RETURNS trigger
    LANGUAGE plpgsql AS $body$
    BEGIN
        IF pg_catalog.current_setting('regionctl.guarded', true)
           IS DISTINCT FROM pg_catalog.pg_current_xact_id()::text
        THEN
            IF EXISTS (SELECT FROM pg_catalog.pg_roles
                       WHERE rolname = session_user AND NOT rolsuper)
            THEN
                RAISE EXCEPTION USING
                    ERRCODE = 'RG003',
                    MESSAGE = pg_catalog.format(
                        '%s on %s without regionctl.guard()', TG_OP, TG_RELNAME);
            END IF;
        END IF;
        RETURN coalesce(NEW, OLD);
    END
    $body$
"""
FENCE = (
    """
    CREATE TABLE regionctl.slot_owner (
        slot int PRIMARY KEY,
        state text NOT NULL CHECK (state IN ('owned', 'fencing', 'moved', 'absent')),
        epoch bigint NOT NULL CHECK (epoch > 0)
    )
    """,
    """
    CREATE FUNCTION regionctl.guard(p_slot int, p_epoch bigint) RETURNS void
    LANGUAGE plpgsql VOLATILE SECURITY DEFINER AS $body$
    DECLARE
        found_state text;
        found_epoch bigint;
    BEGIN
        IF pg_catalog.current_setting('transaction_isolation') = 'read committed' THEN
            PERFORM pg_catalog.pg_advisory_xact_lock_shared(7411, p_slot);
            SELECT state, epoch INTO found_state, found_epoch
            FROM regionctl.slot_owner WHERE slot OPERATOR(pg_catalog.=) p_slot;
        ELSE
            SELECT state, epoch INTO found_state, found_epoch
            FROM regionctl.slot_owner WHERE slot OPERATOR(pg_catalog.=) p_slot FOR SHARE;
        END IF;
        IF found_state IS DISTINCT FROM 'owned' OR found_epoch IS DISTINCT FROM p_epoch THEN
            RAISE EXCEPTION USING
                ERRCODE = 'RG001',
                MESSAGE = pg_catalog.format(
                    'slot %s is %s at epoch %s, the writer has %s', p_slot,
                    coalesce(found_state, 'absent'), coalesce(found_epoch, -1), p_epoch);
        END IF;
        PERFORM pg_catalog.set_config(
            'regionctl.guarded', pg_catalog.pg_current_xact_id()::text, true);
    END
    $body$
    """,
    REFUSE_UNGUARDED,
    "REVOKE ALL ON FUNCTION regionctl.guard(int, bigint) FROM PUBLIC",
    "GRANT USAGE ON SCHEMA regionctl TO app",
    "GRANT EXECUTE ON FUNCTION regionctl.guard(int, bigint) TO app",
    "GRANT SELECT ON regionctl.slot_owner TO app",
    "REVOKE CREATE ON SCHEMA public FROM PUBLIC",
    "GRANT USAGE ON SCHEMA public TO app",
)


def guarded(table: str) -> str:
    """The trigger that refuses an unguarded write of any service to `table`."""
    return (
        f"CREATE TRIGGER guarded BEFORE INSERT OR UPDATE OR DELETE ON {table} "
        "FOR EACH ROW EXECUTE FUNCTION regionctl.refuse_unguarded()"
    )
