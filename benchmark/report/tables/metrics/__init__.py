"""The metrics of the result tables, one per module."""
