"""One run: a spec in, a run folder out."""
