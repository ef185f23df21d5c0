"""Annotations that an algorithm needs and that a data set provides."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

#: Names of the annotations in tables and messages.
DESCRIPTIONS = {
    "masks": "foreground masks in training",
    "class_masks": "masks of the evidence for each class in training",
    "confounder": "confounder labels in training",
    "groups": "group labels in training",
    "environments": "at least two training environments",
    "teacher": "a previously trained teacher",
    "val_groups": "group labels in validation",
    "val_masks": "foreground masks in validation",
}
#: What tables say of needs if masks are made by a network, likewise.
WITHOUT_ANNOTATION = {
    "no annotation": "masks without annotation, made by a network",
    "masks without annotation": "foreground masks made by a network",
}


def without_mask_annotation(needs: tuple[str, ...]) -> tuple[str, ...]:
    """Return the annotations that are left if masks are made by a network.

    Args:
        needs: Names of the annotations that a method uses.

    Returns:
        The names without masks, for tables: ``("no annotation",)`` if masks were all it needed.
    """
    left = tuple(name for name in needs if name not in ("masks", "val_masks"))
    if left == needs:
        return needs
    return (*left, "masks without annotation") if left else ("no annotation",)


@dataclass(frozen=True)
class Needs:
    """The annotations that a method uses, or that a data set provides.

    The engine removes every optional field of a batch that the algorithm does not declare here. A
    method therefore cannot use annotations that its row of the table does not list.

    Attributes:
        masks: Foreground masks in training.
        class_masks: Masks of the evidence for each class in training, of some images at least.
        confounder: Confounder labels in training.
        groups: Group labels in training.
        environments: At least two training environments.
        teacher: A trained teacher.
        val_groups: Group labels in validation.
        val_masks: Foreground masks in validation.
    """

    masks: bool = False
    class_masks: bool = False
    confounder: bool = False
    groups: bool = False
    environments: bool = False
    teacher: bool = False
    val_groups: bool = False
    val_masks: bool = False

    def names(self) -> tuple[str, ...]:
        """Return the names that are set, in the order of declaration."""
        return tuple(f.name for f in fields(self) if getattr(self, f.name))

    def missing_from(self, provided: Needs) -> tuple[str, ...]:
        """Return the names that ``provided`` lacks, except the teacher, which is a run."""
        return tuple(
            name for name in self.names() if name != "teacher" and not getattr(provided, name)
        )

    def on_validation(self) -> Needs:
        """Return the annotations that may be used of validation images."""
        return replace(
            self, masks=self.masks or self.val_masks, groups=self.groups or self.val_groups
        )

    def __or__(self, other: Needs) -> Needs:
        return Needs(
            **{f.name: getattr(self, f.name) or getattr(other, f.name) for f in fields(self)}
        )
