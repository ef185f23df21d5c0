"""Helpers of the tests: toy algorithms, fake sweeps, small data sets, processes."""
