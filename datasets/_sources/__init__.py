"""What several data sets draw on: raw sources, bias assignment, compositing."""
