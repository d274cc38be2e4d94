"""A small robot whose parts are processes; run ``python examples/demo.py``."""
