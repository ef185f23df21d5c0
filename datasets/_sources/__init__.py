"""Code shared by several data sets: raw sources, bias assignment, compositing."""
