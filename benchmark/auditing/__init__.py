"""The audit of a trained model: does it rely on a shortcut?

The package is used by ``python -m benchmark.audit``. ``model`` loads the model, ``pull`` and
``transplant`` are the two experiments, ``verdict`` has the rules, and ``page`` makes the report.
"""
