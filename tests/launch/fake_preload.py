"""What the fork server imports in the launcher's tests."""

import fake_engine  # noqa: F401

import benchmark.launch.worker  # noqa: F401
