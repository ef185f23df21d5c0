"""Every interval and comparison of the report, under one name each; the mathematics is in the modules named here.

``posterior``: scores of a confusion matrix, ``delta``: their sampling sd. ``groups``: the worst group. ``gap``: biased
against deceiving. ``auc``: DeLong. ``stratified``: means over images, patients and trials, contrasts of methods.
``significance``: p-values.
All values are fractions, not per cent. A score or an interval that does not exist is None, and its note says why.
"""

from benchmark.report.statistics.delong import auc_interval, auc_of_labels, auc_one_vs_rest, delong
from benchmark.report.statistics.delta_method import sampling_sd
from benchmark.report.statistics.estimate import Estimate
from benchmark.report.statistics.generalization_gap import Gap, paired_gap, unpaired_gap
from benchmark.report.statistics.hypothesis_tests import (
    holm,
    mcnemar,
    probability_equivalent,
    probability_positive,
    two_sided_p,
)
from benchmark.report.statistics.posterior import (
    ConfusionPosterior,
    PosteriorEstimate,
    confusion_posterior,
)
from benchmark.report.statistics.stratified_mean import (
    Contrast,
    CrossedEstimate,
    contrast,
    crossed_variance,
    stratified_mean,
)
from benchmark.report.statistics.worst_group import worst_group_interval, worst_group_over_trials

__all__ = [
    "ConfusionPosterior",
    "Contrast",
    "CrossedEstimate",
    "Estimate",
    "Gap",
    "PosteriorEstimate",
    "auc_interval",
    "auc_of_labels",
    "auc_one_vs_rest",
    "confusion_posterior",
    "contrast",
    "crossed_variance",
    "delong",
    "holm",
    "mcnemar",
    "paired_gap",
    "probability_equivalent",
    "probability_positive",
    "sampling_sd",
    "stratified_mean",
    "two_sided_p",
    "unpaired_gap",
    "worst_group_interval",
    "worst_group_over_trials",
]
