"""Launchers, one per file; see ``benchmark.launch.executor``."""
