"""What the machine that this process runs on has left, for Prometheus.

A container that shares its kernel with others sees the whole machine here (Fargate gives each task
a machine of its own).
"""

from __future__ import annotations

from collections.abc import Iterator

import psutil
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

NOT_BUSY = ("idle", "iowait")
# Linux counts the time of guests in `user` and `nice` as well (proc(5)).
COUNTED_TWICE = ("guest", "guest_nice")


class Machine(Collector):
    """Looks when it is asked, and keeps nothing."""

    def collect(self) -> Iterator[Metric]:
        memory, times = psutil.virtual_memory(), psutil.cpu_times()._asdict()
        busy = sum(times.values()) - sum(times.get(name, 0) for name in NOT_BUSY + COUNTED_TWICE)
        yield GaugeMetricFamily(
            "regionctl_machine_cpus", "Processors of the machine", value=psutil.cpu_count() or 1
        )
        yield CounterMetricFamily(
            "regionctl_machine_cpu_busy_seconds",
            "Time that the machine's processors were busy",
            value=busy,
        )
        yield GaugeMetricFamily(
            "regionctl_machine_memory_bytes", "Memory of the machine", value=memory.total
        )
        yield GaugeMetricFamily(
            "regionctl_machine_memory_available_bytes",
            "Memory that programs can still have",
            value=memory.available,
        )
