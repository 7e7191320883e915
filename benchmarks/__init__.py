"""Measurements of speed, accuracy and stability, listed in README.md; `python -m benchmarks.GROUP.NAME` runs one."""
