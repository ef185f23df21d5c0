"""Sweep folders read: runs, predictions, learning curves, model selection, tidy export."""
