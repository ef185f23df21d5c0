"""The audit of a trained model: does it rely on a shortcut?

The package is used by ``python -m benchmark.audit``. ``model`` loads the model, ``probes`` holds
the two experiments (marks and transplants), ``verdict`` the rules, and ``page`` the report.
"""
