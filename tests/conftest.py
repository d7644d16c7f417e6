"""What holds for every test: a busy machine makes no example of a property fail, and Ctrl-C is
Ctrl-C also when a shell has begun the tests in the background, where it is ignored."""

import signal

from hypothesis import HealthCheck, settings

signal.signal(signal.SIGINT, signal.default_int_handler)
settings.register_profile("busy", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("busy")
