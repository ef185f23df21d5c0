"""Base class of data sets that are made of image files."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import numpy as np

from benchmark.core.cache_folder import cache_folder
from benchmark.core.class_masks import ClassMasks, LabelledShape, SparseClassMasks
from benchmark.core.dataset import (
    DatasetSource,
    ImageConversion,
    ImageProgress,
    Progress,
    Split,
)
from benchmark.core.errors import UserError
from benchmark.core.hparam import HParam
from datasets._io import decode
from datasets._io.cache import Cache
from datasets._io.cache_entry import CacheColumn, ComputeRows
from datasets._io.file_index import FileIndex
from datasets._io.image_pool import Item, Pool, PoolArrays
from datasets._io.image_report import ReportedImage, image_notes, image_problems
from datasets._io.pixels import ImageFact

#: The largest number of threads that decode images.
_MAX_THREADS = 8


def side_option(default: int) -> HParam:
    """Return the option ``side``."""
    return HParam(default, doc="height and width, pixels", low=8, high=1024)


class _EntryKey(NamedTuple):
    """The identity of a pool's cache entry: name, key and number of images."""

    name: str
    key: str
    rows: int


class ImageSource(DatasetSource):
    """A data set of image files below ``data_dir``. Nothing is downloaded.

    Subclasses implement ``read``, which lists the files, and ``build``, which makes the splits.
    Metadata are read once per object. Images are decoded by ``arrays``, once, into the cache.
    """

    def __init__(self, data_dir: Path | None = None, **options: Any) -> None:
        super().__init__(data_dir, **options)
        self._pools: Mapping[str, Pool] | None = None
        self._entry_keys: dict[str, _EntryKey] = {}
        self._file_index: FileIndex | None = None

    def read(self) -> Mapping[str, Pool]:
        """Read the metadata and return the pools by name.

        Raises:
            UserError: If no data folder was given, files are missing, or metadata are invalid.
        """
        raise NotImplementedError

    def metadata(self) -> Iterable[Path]:
        """Return the metadata files; their bytes are part of the fingerprint."""
        return ()

    def pools(self) -> Mapping[str, Pool]:
        """Return the result of ``read``, which is called once."""
        if self._pools is None:
            self._pools = self.read()
        return self._pools

    def conversion(self) -> ImageConversion:
        """Return the conversion of the images; of composed data sets, that of photographs."""
        recipes = [pool.recipe for pool in self.pools().values() if not pool.recipe.cutout]
        if not recipes:
            return ImageConversion()
        recipe = recipes[0]
        return ImageConversion(recipe.fit, recipe.middle, recipe.equalise, recipe.bits)

    def check(self) -> None:
        for pool in self.pools().values():
            self.files.check([item.image for item in pool.items], "images", self.name)
            masks = [item.mask for item in pool.items if item.mask]
            self.files.check(masks, "masks", self.name)
        if not self.decoded():
            self._cache().check_writable()

    def decoded(self) -> bool:
        """Return True if the cache has all images, so loading is fast and writes nothing."""
        return all(
            self._cache().has(*self._entry_key(name), pool.columns())
            for name, pool in self.pools().items()
        )

    def content(self) -> str:
        """Return a digest of the decoder's version, the metadata, and all file names and sizes.

        Pixels are not included, which would take minutes, nor are modification times, which differ
        between copies of the same data. If images are replaced by others of the same size in
        bytes, the digest stays the same, but the cache notices the change.
        """
        digest = hashlib.sha256(f"decoded by version {decode.VERSION}".encode())
        for path in self.metadata():
            digest.update(path.read_bytes())
        for pool in self.pools().values():
            files = [(*item, *self.files.sizes(item)) for item in pool.items]
            digest.update(json.dumps(files).encode())
        return digest.hexdigest()[:32]

    def prepare(self, progress: ImageProgress | None = None) -> bool:
        """Decode all images of these options that are not in the cache yet."""
        self.check()
        for name in self.pools():
            self.arrays(name, progress)
        return True

    def arrays(self, name: str, progress: ImageProgress | None = None) -> PoolArrays:
        """Return the decoded images of a pool, mapped into memory.

        Images that are not in the cache are decoded first.

        Args:
            name: The name of the pool.
            progress: Called with the name, the number of images done, and their total number.

        Raises:
            UserError: If a file is damaged or the cache cannot be written.
        """
        pool = self.pools()[name]
        with ThreadPoolExecutor(_thread_count()) as threads:
            arrays = self._cache().get(
                *self._entry_key(name),
                pool.columns(),
                lambda start, stop: self._decode(pool, start, stop, threads),
                None if progress is None else lambda done, total: progress(name, done, total),
            )
        facts = arrays["facts"][:, 0]
        return PoolArrays(arrays["image"], arrays["size"], arrays.get("mask"), facts)

    def unpack(self, archive: Path, progress: Progress | None = None) -> int:
        from datasets._io.archive import unpack

        self._pools = None
        self._entry_keys = {}
        self._file_index = None
        return unpack(archive, self.folder(), progress)

    def problems(self) -> list[str]:
        return [*self._cache_damage(), *image_problems(self._reported_images())]

    def notes(self) -> list[str]:
        return image_notes(self._reported_images())

    def split(
        self,
        name: str,
        rows: np.ndarray,
        label: np.ndarray,
        confounder: np.ndarray | None = None,
        environment: np.ndarray | None = None,
        cluster: np.ndarray | None = None,
        channels: int = 0,
        class_masks: ClassMasks | None = None,
    ) -> Split:
        """Make a split of images of a pool. ``pair_id`` is the row in the pool.

        Args:
            name: The name of the pool.
            rows: int64[N], rows of the pool.
            label: Labels of these rows.
            confounder: Confounders of these rows.
            environment: Environments of these rows.
            cluster: Clusters of these rows.
            channels: Repeat a grey image to this number of channels; 0 leaves it unchanged.
            class_masks: The evidence for each class on all images of the pool, or None.
        """
        image = self.image_rows(name, rows)
        if channels and channels != image.shape[1]:
            shape = (len(rows), channels, *image.shape[2:])
            image = np.broadcast_to(image, shape, subok=True)
        mask = self.mask_rows(name, rows) if self.pools()[name].masked else None
        return Split(
            image,
            label,
            confounder,
            environment,
            mask,
            pair_id=rows,
            cluster=cluster,
            class_masks=None if class_masks is None else class_masks.take(rows),
        )

    def class_masks(
        self, name: str, shapes: Sequence[Iterable[LabelledShape]], num_classes: int
    ) -> SparseClassMasks:
        """Return the evidence for each class on all images of a pool, fitted like the images.

        Args:
            name: The name of the pool.
            shapes: The shapes of each image, relative to the size of its file.
            num_classes: The number of classes.
        """
        recipe = self.pools()[name].recipe
        sizes = self.arrays(name).size.tolist()
        views = [decode.visible_part((width, height), recipe) for width, height in sizes]
        return SparseClassMasks(shapes, num_classes, (recipe.side, recipe.side), views)

    def file_of(self, name: str, split: Split, row: int) -> str:
        """Return the file of an image if all images belong to one pool, else its row."""
        pools = list(self.pools().values())
        if len(pools) > 1 or split.pair_id is None or split.pair_id[row] >= len(pools[0].items):
            return f"row {row} of {name}"
        return pools[0].items[int(split.pair_id[row])].image

    def image_rows(self, name: str, rows: np.ndarray) -> np.ndarray:
        """Return rows of a pool's images, mapped if they are consecutive or large."""
        return self._select(name, "image", self.arrays(name).image, rows)

    def mask_rows(self, name: str, rows: np.ndarray) -> np.ndarray:
        """Return rows of a pool's masks, copied into memory if they fit.

        Masks are small, and a device takes them as a whole.
        """
        mask = self.arrays(name).mask
        assert mask is not None
        selected = self._select(name, "mask", mask, rows)
        if selected.nbytes <= self._cache().memory_limit:
            return np.array(selected)
        return selected

    def generate_images(
        self,
        identity: Sequence[np.ndarray],
        rows: int,
        column: CacheColumn,
        compute: ComputeRows,
    ) -> np.ndarray:
        """Return images computed from the pools: in memory, or in the cache if they are large.

        Args:
            identity: int64 arrays: everything that the images depend on besides the pools.
            rows: The number of images.
            column: The shape and type of an image.
            compute: Computes the rows from ``start`` to ``stop`` of the array ``image``.
        """
        pools = [self._entry_key(name).key for name in self.pools()]
        digests = [
            hashlib.sha256(np.asarray(array, np.int64).tobytes()).hexdigest() for array in identity
        ]
        arrays = self._cache().generate(
            self.name, [*pools, *digests], rows, {"image": column}, compute
        )
        return arrays["image"]

    def decode_item(self, item: Item, recipe: decode.Recipe) -> decode.DecodedImage:
        """Decode an image; the default reads its file.

        Args:
            item: The image.
            recipe: The conversion.
        """
        return decode.decode_image(self.folder() / item.image, recipe)

    def load_mask(self, item: Item, size: tuple[int, int]) -> Any:
        """Return the mask of an image as a grey Pillow image.

        Args:
            item: The image.
            size: Width and height of the image file.
        """
        return decode.read_mask(self.folder() / item.mask, size)

    def folder(self) -> Path:
        """Return the data folder.

        Raises:
            UserError: If none was given.
        """
        if self.data_dir is None:
            raise UserError(
                f"{self.name} needs its files, but no data folder was given; pass --data-dir DIR."
            )
        return Path(self.data_dir)

    @property
    def files(self) -> FileIndex:
        """The files below the data folder."""
        if self._file_index is None:
            self._file_index = FileIndex(self.folder())
        return self._file_index

    def find(self, *candidates: str, how: str) -> str:
        """Return the first candidate that exists below the data folder.

        Args:
            *candidates: Paths below the data folder.
            how: How to get the file; the end of the message.

        Raises:
            UserError: If none of them exists.
        """
        for candidate in candidates:
            if (self.folder() / candidate).exists():
                return candidate
        raise UserError(
            f"{self.name} was not found: there is no {' or '.join(candidates)} in "
            f"{self.folder()}; {how}."
        )

    def image_file(self, file: str) -> str:
        """Return the name of an image file that may have been converted from DICOM to PNG.

        Args:
            file: The published file, below the data folder.

        Returns:
            ``file``, or the PNG file beside it if only that exists.
        """
        converted = str(PurePosixPath(file).with_suffix(".png"))
        if self.files.stat(file) is None and self.files.stat(converted) is not None:
            return converted
        return file

    def _decode(
        self, pool: Pool, start: int, stop: int, threads: ThreadPoolExecutor
    ) -> dict[str, np.ndarray]:
        """Decode the images from ``start`` to ``stop`` of a pool."""
        recipe = pool.recipe
        out = {
            name: np.empty((stop - start, *column.shape), column.dtype)
            for name, column in pool.columns().items()
        }

        def decode_row(row: int) -> None:
            item = pool.items[start + row]
            decoded = self.decode_item(item, recipe)
            out["image"][row, : recipe.channels] = decoded.image
            out["size"][row] = decoded.size
            out["facts"][row] = decoded.facts
            if pool.masked:
                mask = self.load_mask(item, decoded.size)
                out["mask"][row] = decode.fit_mask(mask, recipe)
                if recipe.cutout:
                    out["image"][row, recipe.channels :] = decode.fit_soft_mask(mask, recipe)

        list(threads.map(decode_row, range(stop - start)))
        return out

    def _cache(self) -> Cache:
        return Cache(cache_folder(self.data_dir))

    def _entry_key(self, name: str) -> _EntryKey:
        if name not in self._entry_keys:
            pool = self.pools()[name]
            files = [(*item, *self.files.sizes(item, times=True)) for item in pool.items]
            text = json.dumps([pool.recipe.to_json(), files])
            label = name if name == self.name else f"{self.name}-{name}"
            key = hashlib.sha256(text.encode()).hexdigest()[:16]
            self._entry_keys[name] = _EntryKey(f"{label}-{pool.recipe.side}", key, len(pool.items))
        return self._entry_keys[name]

    def _select(self, name: str, column: str, array: np.ndarray, rows: np.ndarray) -> np.ndarray:
        entry = self._entry_key(name)
        return self._cache().select_rows(entry.name, f"{entry.key}-{column}", array, rows)

    def _cache_damage(self) -> list[str]:
        """Read all bytes of the cached images and describe the damage."""
        cache = self._cache()
        sentences = []
        for name, pool in self.pools().items():
            damage = cache.verify(*self._entry_key(name), pool.columns())
            if damage:
                sentences.append(f"the cache in {cache.folder} is damaged: {damage}")
        return sentences

    def _reported_images(self) -> list[ReportedImage]:
        """Return the images that have notable properties."""
        images = []
        for name, pool in self.pools().items():
            facts = np.asarray(self.arrays(name).facts)
            for row in np.flatnonzero(facts).tolist():
                images.append(ReportedImage(pool.items[row].image, ImageFact(int(facts[row]))))
        return images


def _thread_count() -> int:
    if not hasattr(os, "sched_getaffinity"):
        return 4
    return max(1, min(_MAX_THREADS, len(os.sched_getaffinity(0))))
