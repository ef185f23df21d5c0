"""The standard loss on batches in which groups or environments are balanced."""

from __future__ import annotations

from algorithms.erm import ERM
from benchmark.core import ALGORITHMS, Needs, Paper


@ALGORITHMS.register
class Reweight(ERM):
    """Cross-entropy under uniform group sampling; the loss itself uses no group labels.

    This is the "RWG" of Idrissi et al. (2022). In expectation it equals weighting every image by
    1 / (size of its group), with a smaller variance of the gradient. Groups (label, confounder)
    without training images are not sampled.
    """

    name = "reweight"
    title = "Reweighting (groups)"
    variants = {}  # not those of erm
    paper = Paper(
        title="Simple data balancing achieves competitive worst-group-accuracy",
        authors="Idrissi, Arjovsky, Pezeshki, Lopez-Paz",
        year=2022,
        url="https://arxiv.org/abs/2110.14503",
    )
    needs = Needs(groups=True)
    sampling = "group"
    multi_label = False  # an image with several labels belongs to no single group


@ALGORITHMS.register
class ReweightEnvironments(ERM):
    """Cross-entropy on batches with equally many images of every environment.

    This is the control for methods that sample in this way (IRM, MMD, CORAL, DANN, CDAN): their
    gain over ``erm`` may come from their batches, their gain over this method does not. DomainBed's
    ERM is trained in this way.
    """

    name = "reweight_environments"
    title = "Reweighting (environments)"
    variants = {}  # not those of erm
    paper = Paper(
        title="In search of lost domain generalization",
        authors="Gulrajani, Lopez-Paz",
        year=2021,
        url="https://arxiv.org/abs/2007.01434",
    )
    needs = Needs(environments=True)
    sampling = "environment"
