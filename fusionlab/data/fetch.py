"""Registered files fetched into the cache and verified there; the only code of the package that downloads.

A server is not trusted: no more is taken than the registered size, in bounded time, and a file gets its name
only when its SHA-256 is right. Several `data get` may run beside each other.
"""

import hashlib
import time
from collections.abc import Callable, Sequence
from functools import partial
from http.client import HTTPException
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Event, Lock, Thread
from typing import TYPE_CHECKING, TypeVar
from urllib.parse import quote, urljoin

from tqdm import tqdm

from fusionlab import paths
from fusionlab.data.copies import WrongBytesError, locate, read_verified
from fusionlab.data.registry import File
from fusionlab.errors import UserError
from fusionlab.files import drafted

if TYPE_CHECKING:
    import requests

RAW = "https://raw.githubusercontent.com/{repository}/{commit}/{source}"
TIMEOUT = 20.0  # seconds without an answer, or without a further byte
PATIENCE = 90.0  # seconds that any file may take in all, with every try ...
SLOWEST = 10_000  # ... and a second more for so many bytes
RETRIES = 2
PAUSE = 1.0  # seconds before the first of them, twice that before the second
REDIRECTS = 5
THREADS = 8

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


def address(file: File) -> str:
    """Where a file is on the network: in FUSIONLAB_MIRROR where that is an address, else at its source."""
    if mirror := paths.mirror_address():
        return f"{mirror}/{file.path}"
    return RAW.format(repository=file.repository, commit=file.commit, source=quote(file.source))


def missing(files: Sequence[File]) -> list[File]:
    """Those files that the cache does not hold, or holds with other bytes."""
    return [file for file in files if not is_cached(file)]


def is_cached(file: File) -> bool:
    """Whether the cache holds a file with its registered bytes."""
    path = _cached(file)
    if not path.is_file():
        return False
    try:
        read_verified(file, path)
    except UserError:
        return False
    return True


def get(files: Sequence[File]) -> None:
    """Fetches files into the cache: from the mirror where there is one, else from their sources.

    A file comes under its name only when its SHA-256 is right; what had that name before is removed first.
    The first failure stops the rest and raises UserError, as do a server that sends more than is registered
    and one that is too slow; what is already there stays, for the next try.
    """
    folder = paths.mirror()
    stopped, writing = Event(), Lock()

    def get_one(file: File) -> None:
        path = _cached(file)
        if is_cached(file):  # another process was faster
            return
        try:
            path.unlink(missing_ok=True)
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as fault:
            raise _unwritable(path, fault) from fault
        content = _copied(file, folder / file.path) if folder else _tried(file, stopped)
        with writing:
            if stopped.is_set():
                return
            try:
                with drafted(path) as draft:
                    draft.write_bytes(content)
            except OSError as fault:
                raise _unwritable(path, fault) from fault

    try:
        _all(get_one, files, "fetching", stopped)
    finally:
        with writing:  # whoever is at it comes to its end, and after that nobody begins
            pass


def verify(files: Sequence[File]) -> list[str]:
    """What is wrong with the files at hand or missing, a sentence a file.

    A file of the cache with wrong bytes is removed. Of a network, either the released file or our reading of
    it is enough.
    """
    forms: dict[tuple[str, str], list[File]] = {}
    for file in files:
        forms.setdefault((file.role, file.pair), []).append(file)
    return [fault for fault in _all(_fault, list(forms.values()), "verifying") if fault]


def dead(files: Sequence[File]) -> list[str]:
    """The addresses that do not answer, each with the reason; nothing is fetched (HEAD requests)."""

    def ask(file: File) -> str | None:
        for _ in range(1 + RETRIES):
            try:
                _within(_seconds(file), partial(_head, address(file)))
                return None
            except _faults() as fault:
                reason = _reason(fault)
        return f"{paths.without_password(address(file))} {reason}"

    return [fault for fault in _all(ask, files, "asking") if fault]


def _cached(file: File) -> Path:
    """The place of a file in the cache; raises UserError where a link would lead out of it."""
    path = paths.cache() / file.path
    if not path.resolve().is_relative_to(paths.cache().resolve()):
        raise UserError(f"{path} leads out of the cache by a link; remove the link, or move FUSIONLAB_CACHE")
    return path


def _fault(forms: list[File]) -> str | None:
    """What is wrong with the first of these files that is at hand."""
    for file in forms:
        if path := locate(file):
            try:
                read_verified(file, path)
            except WrongBytesError as error:
                return f"{error}{_removed(file)}" if path == paths.cache() / file.path else str(error)
            except UserError as error:
                return str(error)
            return None
    return f"{forms[-1].path} is not here; run `fusionlab data get {forms[-1].dataset}`"


def _removed(file: File) -> str:
    """Removes a file from the cache; what became of it."""
    try:
        _cached(file).unlink()
    except OSError as fault:
        return f" (it cannot be removed: {fault.strerror})"
    return " (it was removed)"


def _unwritable(path: Path, fault: OSError) -> UserError:
    return UserError(
        f"{path} cannot be written ({fault.strerror or 'no permission'}); mend that, or let "
        "FUSIONLAB_CACHE name another folder"
    )


def _copied(file: File, origin: Path) -> bytes:
    """The bytes of a file in a mirror folder, checked."""
    if not origin.is_file():
        raise UserError(f"{origin} is not in the mirror; add it, or unset FUSIONLAB_MIRROR")
    return read_verified(file, origin)


def _tried(file: File, stopped: Event) -> bytes:
    """The bytes of a file on the network, checked; tried again after a failure, but not once `stopped`."""
    origin = paths.without_password(address(file))
    end = time.monotonic() + _seconds(file)
    failure = UserError(f"{origin} was not fetched: stopped")
    for attempt in range(1 + RETRIES):
        if stopped.wait(PAUSE * attempt):
            break
        try:
            return _within(end - time.monotonic(), partial(_download, file, stopped))
        except WrongBytesError as fault:
            failure = UserError(
                f"{origin} is not the registered file {file.path} ({fault}); nothing of it is kept; try "
                "again later, or set FUSIONLAB_MIRROR"
            )
        except _TooSlowError:
            raise UserError(
                f"{origin} sent less than {file.bytes} bytes in {_seconds(file):.3g} s; try again later, or "
                "set FUSIONLAB_MIRROR"
            ) from None
        except _faults() as fault:
            failure = UserError(f"{origin} {_reason(fault)}; try again later, or set FUSIONLAB_MIRROR")
    raise failure


def _download(file: File, stopped: Event) -> bytes:
    """The bytes that a server sends for a file: not one more than it has, and as they come."""
    import requests

    content = b""
    with requests.Session() as session, _answer(session, "GET", address(file)) as answer:
        # Not iter_content, which unpacks: a kilobyte may hold a gigabyte.
        while chunk := answer.raw.read(min(2**16, file.bytes + 1 - len(content)), decode_content=False):
            content += chunk
            if len(content) > file.bytes:
                raise WrongBytesError(f"it goes on after the registered {file.bytes} bytes")
            if stopped.is_set():
                break
    if hashlib.sha256(content).hexdigest() != file.sha256:
        raise WrongBytesError(f"SHA-256 differs, {len(content)} of {file.bytes} bytes came")
    return content


def _head(url: str) -> None:
    import requests

    with requests.Session() as session, _answer(session, "HEAD", url):
        pass


def _answer(session: "requests.Session", method: str, url: str) -> "requests.Response":
    """The answer of a server, its body unread; raises requests.RequestException for one that is no success.

    Redirects are followed here, since a session reads the whole body of each, however long.
    """
    import requests

    for _ in range(1 + REDIRECTS):
        request = requests.Request(method, url, headers={"Accept-Encoding": "identity"})
        surroundings = session.merge_environment_settings(url, {}, True, None, None)
        adapter = session.get_adapter(url)
        answer = adapter.send(session.prepare_request(request), timeout=TIMEOUT, **surroundings)
        target = session.get_redirect_target(answer)
        if target is None:
            answer.raise_for_status()
            return answer
        answer.close()
        url = urljoin(url, target)
    raise requests.TooManyRedirects("redirected too often", response=answer)


class _TooSlowError(OSError):
    """A server that still answers, but too slowly."""


def _faults() -> tuple[type[Exception], ...]:
    """All that talking to a server raises."""
    import requests
    import urllib3

    # ValueError: an address that a redirect named and nobody can read.
    return requests.RequestException, urllib3.exceptions.HTTPError, HTTPException, OSError, ValueError


def _reason(fault: Exception) -> str:
    response = getattr(fault, "response", None)
    if response is not None:
        return f"answers {response.status_code} ({_short(response.reason)})"
    if isinstance(fault, _TooSlowError):
        return "answers too slowly"
    if "timed out" in str(fault):
        return f"gave no answer for {TIMEOUT:g} s"
    if "IncompleteRead" in str(fault):
        return "broke off"
    return f"could not be fetched ({_short(fault)})"


def _short(text: object) -> str:
    """What a server, or a library in its words, has to say: on one line, and without a password."""
    line = paths.printable(paths.without_password(str(text)))
    return line if len(line) <= 400 else f"{line[:400]}..."


def _seconds(file: File) -> float:
    """How long a file may take in all."""
    return PATIENCE + file.bytes / SLOWEST


def _within(seconds: float, work: Callable[[], _Result]) -> _Result:
    """The result of work that is given up after a time: a server may hold it up in a single read."""
    done: SimpleQueue[tuple[_Result | None, Exception | None]] = SimpleQueue()

    def attempt() -> None:
        try:
            done.put((work(), None))
        except Exception as fault:  # raised again below
            done.put((None, fault))

    Thread(target=attempt, daemon=True).start()
    try:
        result, fault = done.get(timeout=max(seconds, 0))
    except Empty:
        raise _TooSlowError from None
    if fault:
        raise fault
    return result  # type: ignore[return-value]  # None where that is the result


def _all(
    work: Callable[[_Item], _Result], items: Sequence[_Item], title: str, stopped: Event | None = None
) -> list[_Result]:
    """The results in order, by threads; the first exception, Ctrl-C too, stops what has not begun.

    It sets `stopped` too, for work that can look at it. Nobody waits for the threads: one that a server holds
    up would hold up the end.
    """
    waiting: SimpleQueue[int] = SimpleQueue()
    done: SimpleQueue[tuple[int, _Result | None, Exception | None]] = SimpleQueue()
    stopped = stopped or Event()
    results: dict[int, _Result] = {}
    for number in range(len(items)):
        waiting.put(number)

    def attend() -> None:
        while not stopped.is_set():
            try:
                number = waiting.get_nowait()
            except Empty:
                return
            try:
                done.put((number, work(items[number]), None))
            except Exception as fault:  # raised again below
                done.put((number, None, fault))

    try:
        with tqdm(total=len(items), desc=title, unit="file", leave=False) as bar:
            for _ in range(min(THREADS, len(items))):
                Thread(target=attend, daemon=True).start()
            while len(results) < len(items):
                try:
                    number, result, fault = done.get(timeout=0.2)  # without one, Windows keeps Ctrl-C waiting
                except Empty:
                    continue
                if fault:
                    raise fault
                results[number] = result  # type: ignore[assignment]  # None where that is the result
                bar.update()
    finally:
        stopped.set()
    return [results[number] for number in range(len(items))]
