"""The Pulumi program: components by what they are for, put together in `main`. Imports pulumi."""
