"""Data sets made of image files: found, listed, checked, and decoded once into the cache."""

from __future__ import annotations

import hashlib
import json
import os
import stat
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmark.core.dataset import DatasetSource, ImageProgress, Progress, Split
from benchmark.core.errors import UserError
from benchmark.core.hparam import HParam
from datasets._io import decode, pixels
from datasets._io.cache import Cache, cache_folder, memory_limit
from datasets._io.cache_entry import CacheColumn, Fill
from datasets._io.decode import Recipe
from datasets._io.pixels import Fact


class Item(NamedTuple):
    """One picture: its file and its mask's, below the data folder, with / between the parts.

    ``mask`` is empty for a picture without one. ``drawn`` is what a mask is drawn from where it is no file, as JSON.
    """

    image: str
    mask: str = ""
    drawn: str = ""


@dataclass(frozen=True)
class Pool:
    """Pictures that are decoded in the same way and kept together, in this order."""

    items: Sequence[Item]
    recipe: Recipe

    @property
    def masked(self) -> bool:
        return bool(self.items) and all(item.mask or item.drawn for item in self.items)

    def columns(self) -> dict[str, CacheColumn]:
        side = self.recipe.side
        channels = self.recipe.channels + self.recipe.cutout
        columns = {
            "image": CacheColumn((channels, side, side)),
            "size": CacheColumn((2,), "int32"),
            "facts": CacheColumn((1,)),
        }
        return {**columns, "mask": CacheColumn((1, side, side), "bool")} if self.masked else columns


class Arrays(NamedTuple):
    """A pool, decoded.

    ``image`` uint8[N,C,H,W]; ``size`` int32[N,2], width and height of the file when upright; ``mask`` bool[N,1,H,W] or
    None; ``facts`` uint8[N], what was notable about each file, flags of ``pixels.Fact``.
    """

    image: np.ndarray
    size: np.ndarray
    mask: np.ndarray | None
    facts: np.ndarray


def side_option(default: int) -> HParam:
    """The option ``side``."""
    return HParam(default, doc="height and width, pixels", low=8, high=1024)


class ImageSource(DatasetSource):
    """A data set of image files below ``data_dir``; nothing is ever downloaded.

    Subclasses say where the files are (``read``) and what the splits are (``build``). Reading metadata is cheap and
    happens once per object; decoding happens in ``arrays``, once per content, into the cache.
    """

    def __init__(self, data_dir: Path | None = None, **options: Any) -> None:
        super().__init__(data_dir, **options)
        self._pools: Mapping[str, Pool] | None = None
        self._entries: dict[str, tuple[str, str, int]] = {}
        self._seen: dict[str, dict[str, os.stat_result | None]] = {}

    def read(self) -> Mapping[str, Pool]:
        """The pools, by name, from the metadata.

        Raises:
            UserError: no data folder, files missing, or metadata that are not what they should be.
        """
        raise NotImplementedError

    def metadata(self) -> Iterable[Path]:
        """The files that say what the pictures are; their bytes are part of the fingerprint."""
        return ()

    def pools(self) -> Mapping[str, Pool]:
        """What ``read`` found, read once."""
        if self._pools is None:
            self._pools = self.read()
        return self._pools

    def check(self) -> None:
        for pool in self.pools().values():
            self._check_files(pool)
        if not self.decoded():
            self._cache().check_writable()

    def decoded(self) -> bool:
        """Whether the cache has all pictures, so that loading is quick and writes nothing."""
        return all(
            self._cache().has(*self._entry(name), pool.columns())
            for name, pool in self.pools().items()
        )

    def content(self) -> str:
        """A digest of how pictures are decoded, the metadata's bytes, and every picture's and mask's name and size.

        Not of the pixels, which would take minutes, nor of times of change, which differ between copies of the same
        data: pictures replaced by others of the same size in bytes are not noticed here. The cache does notice.
        """
        total = hashlib.sha256(f"decoded by version {decode.VERSION}".encode())
        for path in self.metadata():
            total.update(path.read_bytes())
        for pool in self.pools().values():
            total.update(json.dumps([(*item, *self._sizes(item)) for item in pool.items]).encode())
        return total.hexdigest()[:32]

    def prepare(self, progress: ImageProgress | None = None) -> bool:
        """Decode all images of these options that are not in the cache yet."""
        self.check()
        for name in self.pools():
            self.arrays(name, progress)
        return True

    def arrays(self, name: str, report: ImageProgress | None = None) -> Arrays:
        """A pool's pictures, mapped into memory, and decoded first where the cache does not have them.

        Args:
            report: called with the name of the pool, pictures done, and pictures in all.

        Raises:
            UserError: a file is damaged, or the cache has no room.
        """
        pool = self.pools()[name]
        with ThreadPoolExecutor(_threads()) as threads:
            found = self._cache().get(
                *self._entry(name),
                pool.columns(),
                lambda start, stop: self._decode(pool, start, stop, threads),
                None if report is None else lambda done, total: report(name, done, total),
            )
        return Arrays(found["image"], found["size"], found.get("mask"), found["facts"][:, 0])

    def unpack(self, archive: Path, progress: Progress | None = None) -> int:
        """Unpack an archive in the data folder, safely; returns the number of files."""
        from datasets._io.archive import unpack

        self._pools, self._entries, self._seen = None, {}, {}
        return unpack(archive, self.folder(), progress)

    def damage(self) -> list[str]:
        """What is wrong with the cached pictures of these options, all of their bytes read again."""
        cache = self._cache()
        wrong = [
            cache.verify(*self._entry(name), pool.columns()) for name, pool in self.pools().items()
        ]
        return [f"the cache in {cache.folder} is damaged: {why}" for why in wrong if why]

    def problems(self) -> list[str]:
        facts = self._facts()
        found = [
            f"{_counted(facts, fact)} {text}"
            for fact, text in _PROBLEMS.items()
            if _has(facts, fact)
        ]
        scales = [fact for fact in pixels.SCALES.values() if _has(facts, fact)]
        if len(scales) > 1:
            shown = ", ".join(
                f"{_counted(facts, fact)} as values from 0 to {scale.value:,}"
                for scale, fact in pixels.SCALES.items()
                if fact in scales
            )
            found.append(
                f"pictures that do not say what white is were read on different scales: {shown}; convert them to 8 or "
                "16 bits."
            )
        return [*self.damage(), *found]

    def notes(self) -> list[str]:
        facts = self._facts()
        return [
            f"{_counted(facts, fact)} {text}" for fact, text in _NOTES.items() if _has(facts, fact)
        ]

    def _facts(self) -> list[tuple[str, int]]:
        """File and flags of every picture about which something was notable."""
        found = []
        for name, pool in self.pools().items():
            facts = np.asarray(self.arrays(name).facts)
            found += [
                (pool.items[row].image, int(facts[row])) for row in np.flatnonzero(facts).tolist()
            ]
        return found

    def split(
        self, name: str, rows: np.ndarray, label: np.ndarray, confounder: np.ndarray | None = None,
        environment: np.ndarray | None = None, cluster: np.ndarray | None = None, channels: int = 0,
    ) -> Split:  # fmt: skip
        """A split made of rows int64[N] of a pool; the other arrays are those of the rows.

        Args:
            channels: how many channels a grey picture gets, all alike; 0 for those that it has.
        """
        image = self.taken(name, "image", rows)
        if channels and channels != image.shape[1]:
            image = np.broadcast_to(image, (len(rows), channels, *image.shape[2:]), subok=True)
        mask = self.taken(name, "mask", rows) if self.pools()[name].masked else None
        return Split(image, label, confounder, environment, mask, pair_id=rows, cluster=cluster)

    def file_of(self, name: str, split: Split, row: int) -> str:
        """A picture of a split, for people: its file where all pictures are of one pool, else its row."""
        pools = list(self.pools().values())
        if len(pools) > 1 or split.pair_id is None or split.pair_id[row] >= len(pools[0].items):
            return f"row {row} of {name}"
        return pools[0].items[int(split.pair_id[row])].image

    def taken(self, name: str, array: str, rows: np.ndarray) -> np.ndarray:
        """Rows int64[n] of a pool's ``image`` or ``mask``: mapped where they follow one another or are many.

        Masks are copied into memory wherever they fit: they are small, and a device takes them whole.
        """
        label, key, _ = self._entry(name)
        found = self._cache().take(label, f"{key}-{array}", getattr(self.arrays(name), array), rows)
        return np.array(found) if array == "mask" and found.nbytes <= memory_limit() else found

    def made(
        self, what: Sequence[np.ndarray], rows: int, column: CacheColumn, fill: Fill
    ) -> np.ndarray:
        """An array that is made from the pools: in memory, or in the cache where it is large.

        Args:
            what: all that it depends on beside the pools, int64 arrays.
            column, fill: as the cache has them, the column's name being ``image``.
        """
        pools = [self._entry(name)[1] for name in self.pools()]
        parts = [
            hashlib.sha256(np.asarray(array, np.int64).tobytes()).hexdigest() for array in what
        ]
        return self._cache().make(self.name, [*pools, *parts], rows, {"image": column}, fill)[
            "image"
        ]

    def mask_of(self, item: Item, recipe: Recipe, size: tuple[int, int]) -> Any:
        """The mask of a picture of this size in its file, a grey Pillow image."""
        return decode.mask_image(self.folder() / item.mask, size)

    def folder(self) -> Path:
        """The data folder.

        Raises:
            UserError: none was given.
        """
        if self.data_dir is None:
            raise UserError(
                f"{self.name} needs its files, but no data folder was given; pass --data-dir DIR."
            )
        return Path(self.data_dir)

    def find(self, *candidates: str, how: str) -> str:
        """The first of the candidates that exists below the data folder.

        Args:
            how: what would do, the end of the sentence.

        Raises:
            UserError: none does.
        """
        for candidate in candidates:
            if (self.folder() / candidate).exists():
                return candidate
        wanted = " or ".join(candidates)
        raise UserError(
            f"{self.name} was not found: there is no {wanted} in {self.folder()}; {how}."
        )

    def _decode(
        self, pool: Pool, start: int, stop: int, threads: ThreadPoolExecutor
    ) -> dict[str, np.ndarray]:
        columns = pool.columns()
        out = {name: np.empty((stop - start, *c.shape), c.dtype) for name, c in columns.items()}

        def one(row: int) -> None:
            item, recipe = pool.items[start + row], pool.recipe
            image, size, facts = decode.decode_picture(self.folder() / item.image, recipe)
            out["image"][row, : recipe.channels] = image
            out["size"][row], out["facts"][row] = size, facts
            if pool.masked:
                mask = self.mask_of(item, recipe, size)
                out["mask"][row] = decode.fit_mask(mask, recipe)
                if recipe.cutout:
                    out["image"][row, recipe.channels :] = decode.fit_shades(mask, recipe)

        list(threads.map(one, range(stop - start)))
        return out

    def _cache(self) -> Cache:
        return Cache(cache_folder(self.data_dir))

    def _entry(self, name: str) -> tuple[str, str, int]:
        """Name, key and length of a pool's entry in the cache."""
        if name not in self._entries:
            pool = self.pools()[name]
            files = [(*item, *self._sizes(item, times=True)) for item in pool.items]
            text = json.dumps([pool.recipe.to_json(), files])
            label = name if name == self.name else f"{self.name}-{name}"
            key = hashlib.sha256(text.encode()).hexdigest()[:16]
            self._entries[name] = f"{label}-{pool.recipe.side}", key, len(pool.items)
        return self._entries[name]

    def _sizes(self, item: Item, times: bool = False) -> list[int]:
        """Sizes (and times of change) of an item's files; -1 for one that is missing."""
        out = []
        for path in (item.image, item.mask):
            if path:
                found = self._stat(path)
                out += (
                    [-1]
                    if found is None
                    else [found.st_size, *([found.st_mtime_ns] if times else [])]
                )
        return out

    def _stat(self, path: str) -> os.stat_result | None:
        """What the system says of a file; folders are listed once, which is much faster than asking for each file."""
        parent, _, file = path.rpartition("/")
        if parent not in self._seen:
            try:
                with os.scandir(self.folder() / parent) as found:
                    self._seen[parent] = {entry.name: None for entry in found}
            except PermissionError:
                raise
            except (
                OSError,
                ValueError,
            ):  # not there, no folder, a loop of links, or no possible name
                self._seen[parent] = {}
        listed = self._seen[parent]
        if file not in listed:
            return None
        if listed[file] is None:
            try:
                listed[file] = os.stat(self.folder() / path)
            except OSError:  # a link that leads nowhere
                del listed[file]
                return None
        return listed[file]

    def _check_files(self, pool: Pool) -> None:
        masks = [item.mask for item in pool.items if item.mask]
        for what, files in (("images", [item.image for item in pool.items]), ("masks", masks)):
            missing = [file for file in files if self._stat(file) is None]
            if missing:
                raise UserError(
                    f"{self.name}: {len(missing)} of {len(files)} {what} are not in {self.folder()}, the first is "
                    f"{missing[0]}; unpack the data set again, or correct its list of files."
                )
            odd = [file for file in files if not stat.S_ISREG(_mode(self._stat(file)))]
            if odd:
                raise UserError(
                    f"{self.name}: {odd[0]} in {self.folder()} is a folder or a device, expected a picture; "
                    "correct the list of files."
                )
            empty = [
                file
                for file in files
                if (found := self._stat(file)) is not None and found.st_size == 0
            ]
            if empty:
                raise UserError(
                    f"{self.name}: {len(empty)} of {len(files)} {what} are empty files, the first is {empty[0]}; "
                    "unpack the data set again."
                )


def _mode(found: os.stat_result | None) -> int:
    return 0 if found is None else found.st_mode


#: What `check` says of pictures, after their number and the first of them.
_PROBLEMS = {
    Fact.DIM: "of more than 8 bits, using fewer than 16 of 256 grey levels: nearly black or nearly flat; convert them, "
    "or say how many bits are in use (bits=…) where the data set has that option.",
}
_NOTES = {
    Fact.TURNED: "turned upright as EXIF says.",
    Fact.TRANSPARENT: "with transparent pixels, put on white.",
    Fact.FRAMES: "with several frames or pages, of which the first is shown.",
}


def _has(facts: Sequence[tuple[str, int]], fact: Fact) -> bool:
    return any(flags & fact for _, flags in facts)


def _counted(facts: Sequence[tuple[str, int]], fact: Fact) -> str:
    """The number of pictures of which something holds, and the first of them."""
    files = [file for file, flags in facts if flags & fact]
    return f"{len(files):,} picture{'s' * (len(files) != 1)} ({files[0]}{', …' * (len(files) > 1)})"


def numbered(names: Sequence[str]) -> np.ndarray:
    """Equal names become equal numbers, int64[N]."""
    return np.unique(np.asarray(names, dtype=str), return_inverse=True)[1].astype(np.int64)


def _threads() -> int:
    return max(1, min(8, len(os.sched_getaffinity(0)))) if hasattr(os, "sched_getaffinity") else 4
