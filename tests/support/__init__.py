"""Helpers that the tests of several folders share: toy algorithms, fake sweeps, small data sets, processes."""
