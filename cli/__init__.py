"""The console: speaks HTTP to the control plane, writes data to stdout and all else to stderr."""
