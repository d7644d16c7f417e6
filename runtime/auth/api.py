"""HTTP of auth."""

from __future__ import annotations

from fastapi import APIRouter

from runtime.context import Background, Context


def service(context: Context) -> tuple[APIRouter, Background]:
    return APIRouter(), {}
