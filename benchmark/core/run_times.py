"""What parts of a run cost on a device, for estimates."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class RunTimes:
    """Measured costs of one kind of run. Times are in seconds.

    Attributes:
        step: One training step; 0 for a method that makes none.
        image: The evaluation of one image.
        look: One image that the method reads outside of its steps.
        train_passes: How often the method reads the training split outside of its steps.
        val_passes: How often it reads the validation split outside of its steps.
        heatmap: The explanation of one image; 0 without masks or without explanations.
        step_flops: Floating-point operations of a step, per image.
        image_flops: Floating-point operations of the evaluation of one image.
        explained: Explanation and metrics of one image, in a measurement of explanations.
        timed: An explanation of one image that is alone in its batch, in a measurement that times
            explanations.
    """

    step: float = 0.0
    image: float = 0.0
    look: float = 0.0
    train_passes: float = 0.0
    val_passes: float = 0.0
    heatmap: float = 0.0
    step_flops: float = 0.0
    image_flops: float = 0.0
    explained: float = 0.0
    timed: float = 0.0
