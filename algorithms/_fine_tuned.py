"""Base class of methods that fine-tune a standard classifier."""

from __future__ import annotations

from benchmark.core import Algorithm, RunSpec, Setting, Upstream


class FineTuned(Algorithm):
    """A method whose network starts with the weights of an ERM run of the same trial and draw.

    That run is trained first, with the hyper-parameters and the budget that the sweep gives to
    ``erm``.
    """

    def __init__(self, setting: Setting) -> None:
        super().__init__(setting)
        self.network.load_state_dict(setting.upstream["start"].network.state_dict())

    @classmethod
    def upstream(cls, spec: RunSpec) -> dict[str, Upstream]:
        return {"start": Upstream("erm", same_draw=True)}
