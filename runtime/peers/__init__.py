"""Stand-ins for external systems: real servers on loopback, each a process of its own.

They know nothing of the platform and import nothing of it: a real endpoint takes their place by a
setting.
"""
