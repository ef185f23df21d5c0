"""Published tables and other benchmarks' results, read into the report."""
