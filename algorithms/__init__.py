"""Training methods, one family per file; every module here is imported by name."""
