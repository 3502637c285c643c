"""Work behind the main thread: its order, its bound, its errors, and what an exception leaves."""

import threading
from functools import partial

import pytest

from uda.utilities.behind import _WAITING, Behind
from uda.utilities.errors import WriteError


def test_all_is_done_in_order_by_another_thread() -> None:
    done: list[tuple[int, bool]] = []

    def work(number: int) -> None:
        done.append((number, threading.current_thread() is threading.main_thread()))

    with Behind() as behind:
        for number in range(20):
            behind(partial(work, number))
    assert done == [(number, False) for number in range(20)]


def test_no_more_than_a_few_wait() -> None:
    go, begun = threading.Event(), threading.Event()
    done: list[int] = []

    def first() -> None:
        begun.set()
        go.wait()

    def fill(behind: Behind) -> None:
        for number in range(_WAITING + 3):
            behind(partial(done.append, number))
            given.append(number)

    given: list[int] = []
    with Behind() as behind:
        behind(first)
        begun.wait()
        filler = threading.Thread(target=fill, args=(behind,))
        filler.start()
        while len(given) < _WAITING:
            filler.join(0.001)
        filler.join(0.05)
        assert (given, done) == (list(range(_WAITING)), []), "the caller waits for the first"
        go.set()
        filler.join()
    assert done == list(range(_WAITING + 3))


def failing() -> None:
    raise WriteError("full")


@pytest.mark.parametrize("calls", [1, 9])
def test_an_error_is_raised_and_nothing_is_begun_after_it(calls: int) -> None:
    done: list[int] = []

    def give() -> None:
        with Behind() as behind:
            for _ in range(calls):
                behind(failing)
                behind(partial(done.append, 1))

    with pytest.raises(WriteError, match="full"):
        give()
    assert done == []


def test_an_exception_waits_for_what_is_being_done_and_drops_the_rest() -> None:
    go, begun = threading.Event(), threading.Event()
    done: list[int] = []

    def first() -> None:
        begun.set()
        go.wait()
        done.append(0)

    def give() -> None:
        with Behind() as behind:
            behind(first)
            behind(partial(done.append, 1))
            begun.wait()
            threading.Timer(0.05, go.set).start()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        give()
    assert done == [0]
