"""Audits of published tables, and results of other benchmarks."""
