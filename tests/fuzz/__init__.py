"""Fuzzers: mutated sweep files, run folders, command lines and data folders.

Every case is drawn from a seed and its number alone, so that a failure can be repeated:
``FUZZ_ONLY=run_folders:17 pytest --slow tests/fuzz/test_run_folders.py -n 0``. ``FUZZ_SEED`` and
``FUZZ_CASES`` change the seed and the number of cases.
"""
