"""Work shared out to processes of one thread each, so that a result does not depend on how many there are."""

import os
import signal
import threading
import traceback
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager, suppress
from multiprocessing import get_context, parent_process
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any, TypeVar

import torch

from fusionlab.errors import UserError, out_of_memory

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


def in_processes(
    work: Callable[[_Item], _Result], items: Sequence[_Item], workers: int = 1
) -> Generator[tuple[_Item, _Result | UserError]]:
    """Yields each item with its result, or with the UserError that it raised, as they are ready.

    Memory that runs out is such an error of its item. With one worker the work is done here, in order. More
    are new processes, to which `work` and the items are sent, so `work` is a function of a module or a
    partial of one, and each process imports the package anew. One that is killed yields a UserError for the
    item it had, and another takes its place. However this ends, all of them end at once.
    """
    if workers == 1 or len(items) < 2:
        with _one_thread():
            for item in items:
                yield item, _outcome(work, item)
        return
    waiting = deque(items)
    busy: dict[Connection, tuple[BaseProcess, _Item]] = {}
    started: list[BaseProcess] = []
    try:
        for _ in range(min(workers, len(items))):
            _give(waiting, busy, *_start(work, started))
        while busy:
            ready = wait(list(busy))
            for pipe in [pipe for pipe in busy if pipe in ready]:
                process, item = busy.pop(pipe)
                try:
                    outcome = pipe.recv()
                except EOFError:
                    outcome = UserError("a worker process was killed, perhaps for want of memory; use fewer")
                    if waiting:
                        process, pipe = _start(work, started)
                _give(waiting, busy, process, pipe)
                if isinstance(outcome, Exception) and not isinstance(outcome, UserError):
                    raise outcome
                yield item, outcome
    finally:
        # No result is wanted any more, and a second interrupt must not leave some of them behind.
        with _interrupts_ignored():
            for process in started:
                process.kill()
            for process in started:
                process.join()


def _start(work: Callable[[_Item], _Result], started: list[BaseProcess]) -> tuple[BaseProcess, Connection]:
    """A new process that works on what it is sent."""
    context = get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_serve, args=(work, theirs), daemon=True)
    # It inherits both: an interrupt is ours alone, and memory stays its own.
    with _interrupts_ignored(), _memory_kept():
        process.start()
    started.append(process)
    theirs.close()  # so that its end is the end of the pipe
    return process, ours


def _give(
    waiting: "deque[_Item]",
    busy: dict[Connection, tuple[BaseProcess, _Item]],
    process: BaseProcess,
    pipe: Connection,
) -> None:
    """Sends the next item, of which there may be none."""
    if waiting:
        item = waiting.popleft()
        busy[pipe] = process, item
        with suppress(BrokenPipeError):  # killed between two items: the end of the pipe says so
            pipe.send(item)


def _serve(work: Callable[[_Item], _Result], pipe: Connection) -> None:
    """What a process does: one thread, no interrupts, and an end where its parent is killed."""
    torch.set_num_threads(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # where it is not inherited
    threading.Thread(target=_end_with_parent, daemon=True).start()
    with suppress(EOFError, OSError):  # the other end is closed: nothing is left to do
        while True:
            item = pipe.recv()
            try:
                outcome: Any = _outcome(work, item)
            except Exception as error:  # a bug, raised again where it can be seen
                error.add_note(traceback.format_exc())
                outcome = error
            pipe.send(outcome)


def _outcome(work: Callable[[_Item], _Result], item: _Item) -> _Result | UserError:
    try:
        return work(item)
    except UserError as error:
        return error
    except (MemoryError, RuntimeError) as error:
        return UserError(out_of_memory(error))


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
