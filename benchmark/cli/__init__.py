"""Command lines: options and listings that the entry points share."""
