"""Trackers such as TensorBoard, which show the runs of a sweep while they train."""
