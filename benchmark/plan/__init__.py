"""Planning: from a sweep file to a checked graph of runs."""
