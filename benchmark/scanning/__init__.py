"""The scan of a data set: which plain properties of the images predict the label?

The package is used by ``python -m benchmark.data check --scan``. ``properties`` computes the
properties, ``two_halves`` measures how well they predict, and ``scan`` puts both together.
"""
