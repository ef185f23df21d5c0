"""Former name of :mod:`datasets._io.decode`, kept so that older scripts still import it."""

from datasets._io.decode import Recipe, read_image

__all__ = ["Recipe", "read_image"]
