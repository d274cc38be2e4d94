"""Benchmarks: how fast this project is beside others, on this machine, now. See README.md."""
