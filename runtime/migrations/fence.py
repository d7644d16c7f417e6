"""The fence that every database has: who owns a slot here, under which epoch.

A writer calls `regionctl.guard(slot, epoch)` first in its transaction. The function takes a shared
lock on the slot and then reads the owner with a fresh snapshot, so whoever flips the owner and
waits for the lock's holders knows that no write of the old epoch is left.

The setting `regionctl.guarded` says what a transaction has guarded: its id, and on a shard the
slots too (`71,5,902,`). It ends with the transaction, or with the savepoint that it was set in.
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

# The guard of a shard: it also notes which slots the transaction may write to.
GUARD_SLOT = """
    CREATE OR REPLACE FUNCTION regionctl.guard(p_slot int, p_epoch bigint) RETURNS void
    LANGUAGE plpgsql VOLATILE SECURITY DEFINER AS $body$
    DECLARE
        found_state text;
        found_epoch bigint;
        mine text := pg_catalog.concat(pg_catalog.pg_current_xact_id()::text, ',');
        guarded text := pg_catalog.current_setting('regionctl.guarded', true);
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
        IF guarded IS NULL OR NOT pg_catalog.starts_with(guarded, mine) THEN
            guarded := mine;
        END IF;
        PERFORM pg_catalog.set_config(
            'regionctl.guarded', pg_catalog.concat(guarded, p_slot, ','), true);
    END
    $body$
"""
# For a batch of many slots: false instead of RG001, and then no lock is left on the slot.
TRY_GUARD = """
    CREATE FUNCTION regionctl.try_guard(p_slot int, p_epoch bigint) RETURNS boolean
    LANGUAGE plpgsql VOLATILE AS $body$
    BEGIN
        PERFORM regionctl.guard(p_slot, p_epoch);
        RETURN true;
    EXCEPTION WHEN SQLSTATE 'RG001' THEN
        RETURN false;
    END
    $body$
"""
# Of a shard: a row is written only under the guard of its own slot, and stays with its user. For
# a superuser the last only; replication (an apply worker) fires no such trigger.
REFUSE_OTHER_SLOTS = """
    CREATE OR REPLACE FUNCTION regionctl.refuse_unguarded() RETURNS trigger
    LANGUAGE plpgsql AS $body$
    DECLARE
        guarded text := pg_catalog.current_setting('regionctl.guarded', true);
        slot bigint;
    BEGIN
        IF TG_OP = 'DELETE' THEN
            slot := pg_catalog.crc32(pg_catalog.int8send(OLD.user_id)) % 1024;
        ELSE
            slot := pg_catalog.crc32(pg_catalog.int8send(NEW.user_id)) % 1024;
            IF TG_OP = 'UPDATE' AND NEW.user_id <> OLD.user_id THEN
                RAISE EXCEPTION USING
                    ERRCODE = 'RG005',
                    MESSAGE = pg_catalog.format('user_id of %s never changes', TG_RELNAME);
            END IF;
        END IF;
        IF guarded IS NULL
           OR pg_catalog.strpos(guarded, pg_catalog.concat(',', slot, ',')) = 0
           OR NOT pg_catalog.starts_with(
               guarded, pg_catalog.concat(pg_catalog.pg_current_xact_id()::text, ','))
        THEN
            IF EXISTS (SELECT FROM pg_catalog.pg_roles
                       WHERE rolname = session_user AND NOT rolsuper)
            THEN
                RAISE EXCEPTION USING
                    ERRCODE = 'RG003',
                    MESSAGE = pg_catalog.format(
                        '%s on %s without regionctl.guard() of slot %s', TG_OP, TG_RELNAME, slot);
            END IF;
        END IF;
        RETURN coalesce(NEW, OLD);
    END
    $body$
"""


def guarded(table: str) -> str:
    """The trigger that refuses an unguarded write of any service to `table`."""
    return (
        f"CREATE TRIGGER guarded BEFORE INSERT OR UPDATE OR DELETE ON {table} "
        "FOR EACH ROW EXECUTE FUNCTION regionctl.refuse_unguarded()"
    )
