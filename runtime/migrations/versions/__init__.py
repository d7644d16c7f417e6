"""Revisions: two branches, `shard` and `catalog`, one for each kind of database."""
