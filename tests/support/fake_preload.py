"""Modules that the fork server imports in the launcher's tests."""

import benchmark.launch.worker  # noqa: F401
import tests.support.fake_engine  # noqa: F401
