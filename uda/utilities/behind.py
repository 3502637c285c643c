"""Work that is done in order by a thread, while its caller goes on: files are written while the
next image is predicted."""

from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Self

_WAITING = 2  # pieces of work: each holds what it writes


class Behind:
    """Does pieces of work one after the other, in the order in which they are given.

    Use as a context manager: leaving it waits for all of them; leaving it by an exception waits for
    the one that has begun, and drops the others. The first piece that fails is the last one that is
    begun; its error is raised by the call that follows, or on leaving.
    """

    def __enter__(self) -> Self:
        self._given: deque[Future[None]] = deque()
        self._failed = False
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="behind")
        return self

    def __call__(self, work: Callable[[], object]) -> None:
        """Gives it a piece of work, once no more than a few wait to be begun. Raises the error of
        an earlier one."""
        while len(self._given) > _WAITING or (self._given and self._given[0].done()):
            self._given.popleft().result()
        self._given.append(self._thread.submit(self._do, work))

    def _do(self, work: Callable[[], object]) -> None:
        if self._failed:
            return
        try:
            work()
        except BaseException:
            self._failed = True
            raise

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:  # fmt: skip
        try:
            while self._given and error is None:
                self._given.popleft().result()
        finally:
            self._thread.shutdown(cancel_futures=True)
