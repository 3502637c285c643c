"""The range of values of a data set's images of more than 8 bits, remembered until they change."""

from collections.abc import Iterator, Sequence
from functools import lru_cache
from math import isfinite
from pathlib import Path

from uda.data.deep_images import Range
from uda.data.files import joint_range, looked_at, values_in
from uda.data.known_files import FileCache, has_settled, stamp_of
from uda.utilities.errors import InputError
from uda.utilities.user_cache import cache_file


@lru_cache(maxsize=16)  # the splits of a data set are listed several times
def known_range(paths: tuple[Path, ...]) -> Range | None:
    """`range_of` of a data set's images, which opens only those that are new or have changed."""
    cache = FileCache(cache_file("ranges.json"))
    found = joint_range(_values(looked_at(paths), cache))
    cache.save()
    return found


def _values(paths: Sequence[Path], cache: FileCache) -> Iterator[Range | None]:
    for path in paths:
        try:
            stamp, name = stamp_of(path), str(path.absolute())
            fact = cache.get(name, stamp.state)
            if not _is_range(fact):
                fact = list(values_in(path) or ())
                if has_settled(stamp) and all(map(isfinite, fact)):
                    cache.put(name, stamp.state, fact)
            yield (fact[0], fact[1]) if fact else None
        except InputError:
            continue  # it is named when it is read


def _is_range(fact: object) -> bool:
    """Whether it is two numbers, or none; a cache is a file like any other."""
    numbers = isinstance(fact, list) and all(isinstance(number, float) for number in fact)
    return numbers and len(fact) in (0, 2)  # type: ignore[arg-type]
