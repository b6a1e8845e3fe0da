"""Work shared out to processes of one thread each, so that a result does not depend on how many there are."""

import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import get_context, parent_process
from typing import TypeVar

import torch

from fusionlab.errors import UserError

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


def in_processes(
    work: Callable[[_Item], _Result], items: Sequence[_Item], workers: int = 1
) -> Iterator[tuple[_Item, _Result | UserError]]:
    """Yields each item with its result, or with the UserError that it raised, as they are ready.

    With one worker the work is done here, in order. More are new processes, to which `work` and the items are
    sent, so `work` is a function of a module or a partial of one, and each process imports the package anew.
    A process that is killed yields a UserError for its item and those that were still waiting.
    """
    if workers == 1 or len(items) < 2:
        with _one_thread():
            for item in items:
                yield item, _outcome(work, item)
        return
    pool = ProcessPoolExecutor(min(workers, len(items)), get_context("spawn"), _begin)
    try:
        # The processes begin here and inherit both: an interrupt is ours alone, and memory stays theirs.
        with _interrupts_ignored(), _memory_kept():
            # One item a task: the load stays even, and after an interrupt few are left to wait for.
            futures = {pool.submit(_outcome, work, item): item for item in items}
        for future in as_completed(futures):
            yield futures[future], _result(future)
    finally:
        pool.shutdown(cancel_futures=True)


def _outcome(work: Callable[[_Item], _Result], item: _Item) -> _Result | UserError:
    try:
        return work(item)
    except UserError as error:
        return error


def _result(future: "Future[_Result | UserError]") -> _Result | UserError:
    try:
        return future.result()
    except BrokenProcessPool:
        return UserError("a worker process was killed, perhaps for want of memory; try fewer workers")


def _begin() -> None:
    """Readies a new process: one thread, no interrupts, and an end where its parent is killed."""
    torch.set_num_threads(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # where it is not inherited
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


@contextmanager
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


@contextmanager
def _interrupts_ignored() -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():  # only the main thread may set a handler
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


@contextmanager
def _memory_kept() -> Iterator[None]:
    """Lets processes that begin meanwhile keep the memory that they free; a user's own settings win.

    glibc gives the pages of large tensors back at once. Fetching them anew takes a sixth of the time that the
    metrics of a small image need, and two processes wait for each other there. Elsewhere this has no effect.
    """
    keep = {"MALLOC_MMAP_THRESHOLD_": str(2**25), "MALLOC_TRIM_THRESHOLD_": str(2**28)}
    added = {name: value for name, value in keep.items() if name not in os.environ}
    os.environ.update(added)
    try:
        yield
    finally:
        for name in added:
            del os.environ[name]
