"""Backups on this machine: WAL and base backups, sealed, in the object store of another region.

The archiver is a process of its own that must stay small, so importing this package loads nothing.
"""
