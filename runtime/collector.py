"""Sparing the garbage collector, in processes that must not stand still for long."""

from __future__ import annotations

import gc


def spare() -> None:
    """What was imported lives on, so the garbage collector need not walk through it.

    A full collection of some 200 000 such objects would hold up everything in flight.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000, 20, 20)
