"""The settings of ``interval_coverage.py``: which sweeps are simulated, and what is counted."""

from __future__ import annotations

import enum
import math
from dataclasses import dataclass, replace

import numpy as np
from scipy.special import ndtri

from tests.benchmarks.simulated_sweeps import World


class Kind(enum.Enum):
    """Part of the report that a setting counts."""

    INTERVALS = enum.auto()
    DETAILS = enum.auto()
    MARKS = enum.auto()
    COMPARISONS = enum.auto()
    CREDIBLE = enum.auto()


@dataclass(frozen=True)
class Setting:
    """A simulated setting.

    Attributes:
        topic: Topic of the page and name for ``--only``.
        name: Description in the table.
        kind: What is counted.
        world: The data set.
        centres: [methods, groups] centre of each method on the probit scale.
        trials: Number of trials.
        columns: Columns to count; all of the table if empty.
        worse: Methods that are truly worse than the others; the others are equal.
        spread: Range of the standard deviation of methods around ``centres``; the standard
            deviation (log-uniform) and the methods are drawn in each repetition.
        prior_mean: Mean of the prior from which that standard deviation is drawn instead, a
            Gamma distribution of shape 2 as in the report's model, on the probit scale.
        trial_prior: Name of the standard deviation between trials in ``World`` that is drawn from
            the prior of the report's model in each repetition, and the scale of that prior.
        direction: Effect of a method's draw on each group, or the same for all groups.
    """

    topic: str
    name: str
    kind: Kind
    world: World
    centres: np.ndarray
    trials: int
    columns: tuple[str, ...] = ()
    worse: tuple[int, ...] = ()
    spread: tuple[float, float] | None = None
    prior_mean: float | None = None
    trial_prior: tuple[str, float] | None = None
    direction: tuple[float, ...] = (1.0,)

    @property
    def draws_methods(self) -> bool:
        """Whether the methods are drawn in each repetition."""
        return self.spread is not None or self.prior_mean is not None

    def drawn_world(self, random: np.random.Generator) -> World:
        """Return the data set of one repetition, with its standard deviation between trials."""
        if self.trial_prior is None:
            return self.world
        name, scale = self.trial_prior
        # Inverse of the distribution function 1 − scale/√(scale² + sd²), up to ten times the scale.
        sd = scale * math.sqrt(random.uniform(0.1, 1.0) ** -2 - 1.0)
        return replace(self.world, **{name: sd})

    def methods(self, random: np.random.Generator) -> np.ndarray:
        """Return the centres of the methods of one repetition, [methods, groups]."""
        if self.prior_mean is not None:
            spread = random.gamma(2.0, self.prior_mean / 2.0)
        elif self.spread is not None:
            spread = np.exp(random.uniform(*np.log(self.spread)))
        else:
            return self.centres
        drawn = random.normal(size=(len(self.centres), 1)) * np.array(self.direction)
        return np.asarray(self.centres + spread * drawn)


def centre(accuracy: float | list[float], world: World) -> np.ndarray:
    """Return the centres of groups whose accuracy over all trials is given, [groups]."""
    variance = world.seed_sd**2 + world.trial_sd**2 + world.group_sd**2
    scale = math.sqrt(1.0 + world.image_sd**2 + variance)
    return np.broadcast_to(ndtri(accuracy) * scale, (world.groups,)).copy()


def equal(methods: int, accuracy: float | list[float], world: World) -> np.ndarray:
    """Return the centres of methods that are all equal, [methods, groups]."""
    return np.tile(centre(accuracy, world), (methods, 1))


def _trials(number: int) -> str:
    return "1 trial" if number == 1 else f"{number} trials"


def settings() -> list[Setting]:
    """Return all settings."""
    return [
        *_marks(),
        *_power(),
        *_worst_group_marks(),
        *_near_one(),
        *_intervals(),
        *_without_predictions(),
        *_details(),
        *_worst_group(),
        *_comparisons(),
        *_comparisons_by_prior(),
        *_credible(),
    ]


_AVERAGE = ("average_accuracy",)
_WORST = ("worst_group_accuracy", "worst_class_accuracy")
#: Trials that differ by about 1.5 points, and by about 5.
_LITTLE, _MUCH = 0.07, 0.25


def _marks() -> list[Setting]:
    found = []
    for methods in (2, 6, 14):
        for trials in (1, 3, 5):
            for trial_sd, how in ((_LITTLE, "little"), (_MUCH, "much")):
                world = World((250, 250), trial_sd=0.0 if trials == 1 else trial_sd)
                if trials == 1 and how == "much":
                    continue
                name = f"{methods} methods, {_trials(trials)} that differ {how}, 500 images"
                if trials == 1:
                    name = f"{methods} methods, 1 trial without effect of the seed, 500 images"
                centres = equal(methods, 0.8, world)
                found.append(Setting("marks", name, Kind.MARKS, world, centres, trials, _AVERAGE))
    for trials in (3, 5):
        world = World((250, 250), trial_sd=_LITTLE, trial_factors=(1.0, 4.0))
        centres = np.stack(
            [
                centre(0.8, replace(world, trial_sd=_LITTLE * factor))
                for factor in np.resize(world.trial_factors, 6)
            ]
        )
        name = f"6 methods, {trials} trials that differ 4 times as much in every second method"
        found.append(Setting("marks", name, Kind.MARKS, world, centres, trials, _AVERAGE))
    world = World((250, 250), trial_sd=_LITTLE)
    for methods in (2, 6, 14):
        name = f"{methods} methods, 1 trial, and seeds matter (1.5 points)"
        centres = equal(methods, 0.8, world)
        found.append(Setting("one trial", name, Kind.MARKS, world, centres, 1, _AVERAGE))
    return found


def _power() -> list[Setting]:
    found = []
    for methods in (2, 6, 14):
        for trials in (1, 3, 5):
            world = World((250, 250), trial_sd=0.0 if trials == 1 else _LITTLE)
            centres = equal(methods, 0.8, world)
            centres[0] = centre(0.75, world)
            name = f"5 points worse, {methods} methods, {_trials(trials)}, 500 images"
            found.append(Setting("power", name, Kind.MARKS, world, centres, trials, _AVERAGE, (0,)))
    return found


def _worst_group_marks() -> list[Setting]:
    found = []
    for trials in (1, 3, 5):
        for methods in (2, 6):
            trial_sd = 0.0 if trials == 1 else _LITTLE
            world = World((100,) * 4, confounders=2, trial_sd=trial_sd, group_sd=trial_sd)
            profiles = [[0.7, 0.7, 0.7, 0.7], [0.7, 0.9, 0.9, 0.9], [0.9, 0.9, 0.7, 0.8]]
            centres = np.stack([centre(profiles[k % 3], world) for k in range(methods)])
            name = f"{methods} methods, {_trials(trials)}, equal minima, other groups differ"
            found.append(
                Setting("worst-group marks", name, Kind.MARKS, world, centres, trials, _WORST)
            )
            centres = centres.copy()
            centres[0] = centre([0.5, 0.7, 0.7, 0.7], world)
            name = f"{methods} methods, {_trials(trials)}, 20 points worse"
            found.append(
                Setting("worst-group marks", name, Kind.MARKS, world, centres, trials, _WORST, (0,))
            )
    return found


def _near_one() -> list[Setting]:
    found = []
    for trials in (1, 2, 3, 5):
        for accuracy in (0.99, 0.995):
            world = World((100, 100), trial_sd=0.05)
            name = f"accuracy {100 * accuracy:g} %, {_trials(trials)}, 200 images"
            centres = equal(2, accuracy, world)
            found.append(Setting("near 1", name, Kind.INTERVALS, world, centres, trials, _AVERAGE))
    return found


def _intervals() -> list[Setting]:
    biased = World((100, 100), confounders=2, bias_splits=True, trial_sd=0.1, group_sd=0.1)
    wild = World((100, 100), confounders=2, bias_splits=True, trial_sd=0.3, group_sd=0.3)
    own = World((100, 100, 40, 40), confounders=2, own_images=True)
    patients = World((200, 200), patients=60)
    ten = World((50,) * 10)
    labels = World((300,), labels=4)
    draws = World((150, 150), draws=10, trial_sd=0.1)
    far = [0.95, 0.6, 0.6, 0.95]
    found = []
    for trials in (1, 3, 5):
        for name, world, accuracy in (
            ("paired splits of 200 images", biased, far),
            ("paired splits of 200 images, trials differ much", wild, far),
            ("own images in each trial, groups of 100 and 40", own, 0.8),
            ("60 patients, 400 images", patients, 0.8),
            ("10 classes of 50 images", ten, np.linspace(0.6, 0.95, 10).tolist()),
            ("4 labels, 300 images", labels, 0.85),
            ("best of 10 draws, 300 images", draws, 0.8),
        ):
            worst = _WORST if not world.bias_splits else ()
            columns = (
                _AVERAGE if worst else (*_AVERAGE, "biased_accuracy", "deceiving_accuracy", "gap")
            )
            found.append(
                Setting(
                    "intervals",
                    f"{name}, {_trials(trials)}",
                    Kind.INTERVALS,
                    world,
                    equal(1, accuracy, world),
                    trials,
                    columns,
                )
            )
    return found


def _without_predictions() -> list[Setting]:
    found = []
    for trials in (2, 3, 5):
        for name, sd, image_sd in (
            ("differ little", _LITTLE, 1.0),
            ("differ much", _MUCH, 1.0),
            ("err on the same images", _LITTLE, 10.0),
        ):
            world = World(
                (100, 100),
                confounders=2,
                bias_splits=True,
                predictions=False,
                trial_sd=sd,
                image_sd=image_sd,
            )
            centres = equal(1, [0.9, 0.6, 0.6, 0.9], world)
            columns = (*_AVERAGE, "biased_accuracy", "deceiving_accuracy", "gap")
            title = f"{_trials(trials)} that {name}, splits of 200 images"
            found.append(
                Setting("no predictions", title, Kind.INTERVALS, world, centres, trials, columns)
            )
    return found


def _details() -> list[Setting]:
    found = []
    for trials in (1, 3, 5):
        for accuracy in (0.75, 0.93):
            for name, sd in (("differ little", _LITTLE), ("differ much", _MUCH)):
                world = World((100, 100), trial_sd=sd)
                title = f"accuracy {100 * accuracy:g} %, {_trials(trials)} that {name}, 200 images"
                centres = equal(1, [accuracy - 0.03, accuracy + 0.03], world)
                found.append(Setting("scores", title, Kind.DETAILS, world, centres, trials))
    return found


def _worst_group() -> list[Setting]:
    found = []
    for trials in (1, 2, 3, 5):
        for name, sizes, accuracy, sd in (
            ("4 equal groups of 100", (100,) * 4, 0.8, _LITTLE),
            ("20 equal groups of 50", (50,) * 20, 0.9, _LITTLE),
            ("groups of 500 500 200 10", (500, 500, 200, 10), [0.95, 0.9, 0.8, 0.8], _LITTLE),
            ("Waterbirds-like", (1000, 300, 1000, 300), [0.98, 0.62, 0.75, 0.92], _LITTLE),
            ("4 groups of 100, trials differ much", (100,) * 4, [0.75, 0.6, 0.7, 0.8], _MUCH),
        ):
            world = World(sizes, confounders=2, trial_sd=sd, group_sd=sd)
            title = f"{name}, {_trials(trials)}"
            centres = equal(1, accuracy, world)
            found.append(
                Setting("worst group", title, Kind.INTERVALS, world, centres, trials, _WORST)
            )
    return found


def _comparisons() -> list[Setting]:
    found = []
    for trials in (1, 3, 5):
        for methods in (2, 6):
            for points, spread in (
                ("0.3 points", (0.015, 0.015)),
                ("1 point", (0.05, 0.05)),
                ("0.5 to 6 points", (0.025, 0.3)),
            ):
                world = World((250, 250), trial_sd=_LITTLE)
                title = f"{methods} methods that differ by {points}, {_trials(trials)}, 500 images"
                found.append(
                    Setting(
                        "comparisons",
                        title,
                        Kind.COMPARISONS,
                        world,
                        equal(methods, 0.8, world),
                        trials,
                        _AVERAGE,
                        spread=spread,
                    )
                )
        world = World((100, 100), confounders=2, bias_splits=True)
        title = f"6 methods with gaps that differ by 1 to 6 points, {_trials(trials)}, 200 images"
        found.append(
            Setting(
                "comparisons",
                title,
                Kind.COMPARISONS,
                world,
                equal(6, [0.85, 0.75, 0.75, 0.85], world),
                trials,
                ("gap",),
                spread=(0.025, 0.15),
                direction=(1.0, -1.0, -1.0, 1.0),
            )
        )
    return found


def _comparisons_by_prior() -> list[Setting]:
    """Return settings in which sweeps differ as the report's prior expects.

    Printed probabilities are those of this mixture of sweeps. Both the standard deviation between
    methods and that between trials are drawn from the priors of the model, with a mean of 3 points
    and a scale of 1.5, or twice as much for the gap. A point of accuracy is 0.05 on the probit
    scale, a point of the gap 0.025 by method and 0.05 by group.
    """
    found = []
    for trials in (1, 3, 5):
        for methods in (2, 6):
            world = World((250, 250), trial_sd=0.0)
            title = f"{methods} methods drawn from the prior, {_trials(trials)}, 500 images"
            found.append(
                Setting(
                    "prior",
                    title,
                    Kind.COMPARISONS,
                    world,
                    equal(methods, 0.8, world),
                    trials,
                    _AVERAGE,
                    prior_mean=0.15,
                    trial_prior=None if trials == 1 else ("trial_sd", 0.075),
                )
            )
        world = World((100, 100), confounders=2, bias_splits=True, trial_sd=0.0)
        title = f"6 methods with gaps drawn from the prior, {_trials(trials)}, 200 images"
        found.append(
            Setting(
                "prior",
                title,
                Kind.COMPARISONS,
                world,
                equal(6, [0.85, 0.75, 0.75, 0.85], world),
                trials,
                ("gap",),
                prior_mean=0.15,
                trial_prior=None if trials == 1 else ("group_sd", 0.15),
                direction=(1.0, -1.0, -1.0, 1.0),
            )
        )
    return found


def _credible() -> list[Setting]:
    found = []
    ten = np.linspace(0.6, 0.95, 10).tolist()
    far = [0.95, 0.6, 0.6, 0.95]
    for name, world, accuracy in (
        ("2 classes, 500 images", World((250, 250), trial_sd=_LITTLE), 0.8),
        ("2 classes, 500 images, trials differ much", World((250, 250), trial_sd=_MUCH), 0.8),
        ("2 classes, 200 images, accuracy 99.5 %", World((100, 100), trial_sd=_LITTLE), 0.995),
        ("10 classes of 50 images", World((50,) * 10, trial_sd=_LITTLE), ten),
        ("10 classes of 500 images", World((500,) * 10, trial_sd=_LITTLE), ten),
        (
            "paired splits of 200 images",
            World((100, 100), confounders=2, bias_splits=True, trial_sd=_LITTLE),
            far,
        ),
    ):
        columns = (*_AVERAGE, "gap")
        centres = equal(1, accuracy, world)
        found.append(Setting("credible", name, Kind.CREDIBLE, world, centres, 1, columns))
    return found
