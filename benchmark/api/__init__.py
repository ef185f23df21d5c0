"""The Python interface: load finished runs and sweeps, predict, explain, export.

Its functions are also available as ``benchmark.load_run``, ``benchmark.load_sweep``,
``benchmark.load_exported`` and ``benchmark.launch``, which import it on first use.
"""
