"""What is worth a line in a log. Each in a process of its own: logging is set up once a process."""

from __future__ import annotations

import subprocess
import sys


def logged(setup: str, *calls: str) -> str:
    """What a process writes to stderr that sets up its logs and then calls loggers."""
    program = "\n".join(["import logging", setup, *(f"logging.getLogger{call}" for call in calls)])
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stderr


def test_a_service_logs_no_request_but_every_error() -> None:
    found = logged(
        "from runtime.telemetry import log_json_lines as log; log('orders')",
        "('uvicorn.access').info('GET /health/ready')",
        "('uvicorn.error').error('it broke')",
        "('runtime').info('map 7')",
    )
    assert "/health/ready" not in found
    assert "it broke" in found
    assert "map 7" in found


def test_the_control_plane_logs_no_request_of_its_client_and_no_migration() -> None:
    found = logged(
        "from control_plane.app import log_lines as log; log()",
        "('httpx').info('HTTP Request: GET /health')",
        "('alembic.runtime.migration').info('Running upgrade')",
        "('alembic.runtime.migration').warning('odd')",
        "('control_plane').info('op_1 begins')",
    )
    assert "Request" not in found
    assert "Running" not in found
    assert "odd" in found
    assert "op_1 begins" in found
