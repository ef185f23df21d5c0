"""Names that break a report which does not escape them, and a sweep that uses them."""

from __future__ import annotations

from pathlib import Path

from tests.support.fake_sweep import DRO, ERM, FakeSweep, Method, World

HOSTILE_NAMES = (
    r"a_b%c&d#e$f{g}h~i^j\k",
    r"\input{secret}",
    "[x] *y* <z> |w| \"q\" 'r' `s` -- --- ?` !`",
    "naïve Łódź Ångström ß œ æ ø ﬁ ğ ş",
    "αβγ Ω Δ ≤ ± × − → … ∞ ∂",
    "漢字 и кириллица عربى 🦩 \u200b\u0301",
    "line\nbreak\ttab\x1b[31m\x00",
    "^^41 ^^M %%",
    "{{{",
    "}}}",
    "$$",
    "&&",
    "\\\\",
    "a" * 90,
)


def sweep_with_hostile_names(root: Path) -> Path:
    """Write a sweep folder whose data sets, classes, methods and splits have these names."""
    fake = FakeSweep(root)
    names = tuple(HOSTILE_NAMES[:3])
    world = World(f"data_{HOSTILE_NAMES[0]}", size=60, classes=3, label_names=names)
    for name in HOSTILE_NAMES:
        fake.add(world, Method(name, needs=("masks", "val_groups")), trials=(0,))
    fake.add(world, DRO, trials=(0, 1))
    fake.refuse(world, HOSTILE_NAMES[1], f"refused because {' '.join(HOSTILE_NAMES)}")
    fake.add(World("other", size=60, splits=("test", HOSTILE_NAMES[0])), ERM, trials=(0,))
    fake.add(World("failed"), ERM, trials=(0,), state="failed")
    return fake.finish(title=f"title {HOSTILE_NAMES[0]}\n\\end{{document}}")
