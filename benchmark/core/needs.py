"""What an algorithm asks of its data, and what a data set can give."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

#: What each kind of knowledge is called in tables and in error messages.
DESCRIPTIONS = {
    "masks": "foreground masks in training",
    "confounder": "confounder labels in training",
    "groups": "group labels in training",
    "environments": "at least two training environments",
    "teacher": "a teacher trained before",
    "val_groups": "group labels in validation",
    "val_masks": "foreground masks in validation",
}


@dataclass(frozen=True)
class Needs:
    """The annotation budget of a method, or the annotations of a data set.

    The engine strips every optional field of a batch that the algorithm did not declare here, so a method cannot
    use what its row in the table does not admit to.
    """

    masks: bool = False
    confounder: bool = False
    groups: bool = False
    environments: bool = False
    teacher: bool = False
    val_groups: bool = False
    val_masks: bool = False

    def names(self) -> tuple[str, ...]:
        """The names that are set, in the order of declaration."""
        return tuple(f.name for f in fields(self) if getattr(self, f.name))

    def missing_from(self, provided: Needs) -> tuple[str, ...]:
        """Names needed here that ``provided`` lacks; a teacher is a run, not an annotation, so it never counts."""
        return tuple(
            name for name in self.names() if name != "teacher" and not getattr(provided, name)
        )

    def on_validation(self) -> Needs:
        """What may be seen of validation images: what training sees, and what is needed at validation time only."""
        return replace(
            self, masks=self.masks or self.val_masks, groups=self.groups or self.val_groups
        )

    def __or__(self, other: Needs) -> Needs:
        return Needs(
            **{f.name: getattr(self, f.name) or getattr(other, f.name) for f in fields(self)}
        )
