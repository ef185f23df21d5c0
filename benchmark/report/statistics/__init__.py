"""Estimates, intervals and tests. Pure functions of arrays."""
