"""The process that ``hdf5`` starts: walks all groups, datasets and attributes of a file and writes JSON findings."""

import contextlib
import dataclasses
import json
import math
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from goodnet.models.scan.base import GIB, JSON_LIMIT, MIB, Broken, Finding, Window, findings_in, is_bomb
from goodnet.models.scan.keras_config import scan_keras_config

_OBJECT_LIMIT = 100_000
_FINDING_LIMIT = 100
_MEMORY_LIMIT = 4 * GIB
_CHUNK_LIMIT = 256 * MIB
_ATTRIBUTE_MEMORY = 256 * MIB
"""What reading one attribute may take: where texts are of any length, only reading tells how long they are."""
_FILTERS = {h5py.h5z.FILTER_DEFLATE, h5py.h5z.FILTER_SHUFFLE, h5py.h5z.FILTER_FLETCHER32, h5py.h5z.FILTER_LZF}


class Walk:
    """Every object that can be reached from the root of an HDF5 file, each looked at once.

    Attributes:
        findings: what was found.
    """

    def __init__(self, window: Window):
        self.findings: list[Finding] = []
        self._size = window.size
        self._declared = 0
        self._seen: set[int] = set()
        try:
            with h5py.File(window, "r") as file:
                self._walk(file)
        except (OSError, RuntimeError, KeyError, ValueError, TypeError, OverflowError) as error:
            raise Broken(f"cannot be read as HDF5: {str(error)[:200]}") from None

    def _walk(self, file: Any) -> None:
        pending = [file]
        while pending and len(self.findings) < _FINDING_LIMIT:
            item = pending.pop()
            place = str(item.name)
            for name in item.attrs:
                self.findings += findings_in(f"{place}, attribute {name!r:.80}", self._scan_attribute, item, name)
            if isinstance(item, h5py.Dataset):
                self.findings += findings_in(place, self._scan_dataset, item)
            elif isinstance(item, h5py.Group):
                for name in item:
                    self.findings += findings_in(f"{place}, {name!r:.80}", self._follow, item, name, pending)
            else:
                self.findings.append(Finding("unreadable", place, "", "neither a group nor a dataset"))

    def _follow(self, group: Any, name: Any, pending: list[Any]) -> list[Finding]:
        _check_name(name)
        link = group.get(name, getlink=True)
        if isinstance(link, h5py.ExternalLink):
            raise Broken(f"a link to another file, {link.filename!r:.80}")
        if not isinstance(link, h5py.HardLink):
            raise Broken("a soft link, which goodnet does not follow")
        item = group[name]
        address = h5py.h5o.get_info(item.id).addr
        if address in self._seen:
            raise Broken("a second link to the same object")
        self._seen.add(address)
        if len(self._seen) > _OBJECT_LIMIT:
            raise Broken(f"more than {_OBJECT_LIMIT:,} objects")
        pending.append(item)
        return []

    def _scan_attribute(self, item: Any, name: Any) -> list[Finding]:
        _check_name(name)
        attribute = h5py.h5a.open(item.id, name.encode())
        count = attribute.get_space().get_simple_extent_npoints()
        size = count * attribute.dtype.itemsize
        if size > JSON_LIMIT:
            raise Broken(f"an attribute of {size:,} bytes")
        is_text = h5py.check_string_dtype(attribute.dtype) is not None
        if attribute.dtype.kind not in "biufSU" and not is_text:
            raise Broken(f"an attribute of type {attribute.dtype}")
        if is_text and count > _OBJECT_LIMIT:
            raise Broken(f"a list of {count:,} texts")
        value = _read_attribute(item, name) if count else ""
        if not is_text:
            return []
        texts = [value] if isinstance(value, str | bytes) else np.ravel(value).tolist()
        self._declare(sum(map(len, texts)))
        configs = (text for text in texts if name.endswith("_config") or text[:1] in ("{", b"{"))
        return [finding for config in configs for finding in scan_keras_config(config)]

    def _scan_dataset(self, dataset: Any) -> list[Finding]:
        properties = dataset.id.get_create_plist()
        layout = properties.get_layout()
        if properties.get_external_count() or layout == h5py.h5d.VIRTUAL:
            raise Broken("a dataset that lies in other files")
        if dataset.dtype.kind not in "biufS":
            raise Broken(f"a dataset of type {dataset.dtype}; goodnet reads numbers")
        if not {properties.get_filter(number)[0] for number in range(properties.get_nfilters())} <= _FILTERS:
            raise Broken("a dataset that is packed in a way that goodnet does not read")
        size = 0 if dataset.shape is None else math.prod(dataset.shape) * dataset.dtype.itemsize
        self._declare(size)
        if layout == h5py.h5d.CONTIGUOUS and size:
            start, there = dataset.id.get_offset(), dataset.id.get_storage_size()
            if start is None or there < size or start + size > self._size:
                raise Broken(f"a dataset that declares {size:,} bytes; the file does not hold them")
        elif layout == h5py.h5d.CHUNKED and size:
            _read_chunks(dataset)
        return []

    def _declare(self, size: int) -> None:
        """Count what a loader would read."""
        self._declared += size
        if is_bomb(self._declared, self._size):
            raise Broken(f"datasets and texts that declare {self._declared:,} bytes in a file of {self._size:,}")


def _check_name(name: Any) -> None:
    if not isinstance(name, str):  # h5py gives bytes where the file does not hold UTF-8
        raise Broken("a name that is not UTF-8")


def _read_attribute(item: Any, name: str) -> Any:
    """Read an attribute once, whatever it holds: what hangs the library or takes all memory is to do it here."""
    try:
        with _at_most(_ATTRIBUTE_MEMORY):
            return item.attrs[name]
    except (OSError, RuntimeError, ValueError, TypeError, MemoryError) as error:
        raise Broken(f"cannot be read in {_ATTRIBUTE_MEMORY // MIB} MiB of memory: {str(error)[:200]}") from None


def _read_chunks(dataset: Any) -> None:
    """Read a dataset once, chunk by chunk: whatever crashes the library is to crash it here."""
    size = math.prod(dataset.chunks) * dataset.dtype.itemsize
    if len(dataset.chunks) != len(dataset.shape) or size > _CHUNK_LIMIT:
        raise Broken("a dataset in chunks of absurd shape")
    try:
        for selection in dataset.iter_chunks():
            dataset[selection]
    except (OSError, RuntimeError, ValueError) as error:
        raise Broken(f"cannot be unpacked: {str(error)[:200]}") from None


def _limit_memory() -> None:
    try:
        import resource
    except ImportError:  # not on Windows
        return
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY_LIMIT, _MEMORY_LIMIT))


@contextlib.contextmanager
def _at_most(more: int) -> Iterator[None]:
    """Inside, the process gets ``more`` bytes of memory beside those that it has; on Linux only."""
    if sys.platform != "linux":
        yield
        return
    import resource

    taken = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    before, most = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (min(taken + more, most), most))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (before, most))


def main() -> None:
    """Arguments: path, start and size of the HDF5 file inside it, in bytes."""
    path, start, size = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    _limit_memory()
    with path.open("rb") as file:
        findings = findings_in("", lambda: Walk(Window(file, start, size, path)).findings)
    sys.stdout.write(json.dumps([dataclasses.asdict(finding) for finding in findings[:_FINDING_LIMIT]]))


if __name__ == "__main__":
    main()
