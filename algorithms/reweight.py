"""Balanced batches under the standard loss: every group, or every environment, equally often."""

from __future__ import annotations

from algorithms.erm import ERM
from benchmark.core.algorithm import Paper
from benchmark.core.needs import Needs
from benchmark.core.registry import ALGORITHMS


@ALGORITHMS.register
class Reweight(ERM):
    """Cross-entropy under uniform group sampling: the sampler does all the work, the loss never sees a group.

    It is the "RWG" of Idrissi et al. (2022): equal in expectation to weighting every image by 1 / (size of its group),
    with a smaller variance of the gradient. A group (label, confounder) that has no training image stays unseen.
    """

    name = "reweight"
    variants = {}  # not those of erm
    paper = Paper(
        "Simple data balancing achieves competitive worst-group-accuracy",
        "Idrissi, Arjovsky, Pezeshki, Lopez-Paz", 2022, "https://arxiv.org/abs/2110.14503",
    )  # fmt: skip
    needs = Needs(groups=True)
    sampling = "group"
    multi_label = False  # an image with several labels is in no one group


@ALGORITHMS.register
class ReweightEnvironments(ERM):
    """Cross-entropy on batches that hold equally many images of every environment: the loss never sees one.

    It is the control for methods that sample in this way (IRM, MMD, CORAL, DANN, CDAN): what they gain over ``erm`` may
    be the work of their batches, and what they gain over this is their own. DomainBed's ERM is trained like this.
    """

    name = "reweight_environments"
    variants = {}  # not those of erm
    paper = Paper(
        "In search of lost domain generalization",
        "Gulrajani, Lopez-Paz", 2021, "https://arxiv.org/abs/2007.01434",
    )  # fmt: skip
    needs = Needs(environments=True)
    sampling = "environment"
