"""Registered files fetched into the cache and verified there; the only code of the package that downloads."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING, TypeVar
from urllib.parse import quote

from tqdm import tqdm

from fusionlab import paths
from fusionlab.data.registry import File
from fusionlab.data.sources import WrongBytesError, locate, read_verified
from fusionlab.errors import UserError

if TYPE_CHECKING:
    import requests

RAW = "https://raw.githubusercontent.com/{repository}/{commit}/{source}"
TIMEOUT = 20.0  # seconds without an answer, or without a further byte
RETRIES = 2  # pooch waits one second before the first, two before the second
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
    The first failure stops the rest and raises UserError; what is already there stays, for the next try.
    """
    import pooch
    import requests

    pooch.get_logger().setLevel("WARNING")
    folder = paths.mirror()
    origins = {file.path: str(folder / file.path) if folder else address(file) for file in files}
    pup = pooch.create(
        path=paths.cache(),
        base_url="",
        registry={file.path: file.sha256 for file in files},
        urls=origins,
        retry_if_failed=0 if folder else RETRIES,
    )
    transfer = _copy if folder else pooch.HTTPDownloader(timeout=TIMEOUT, chunk_size=2**16)
    stopped = Event()

    def download(origin: str, target: str, caller: object) -> None:
        if stopped.is_set():  # after Ctrl-C nobody waits for another try
            raise UserError(f"{origin} was not fetched: stopped")
        transfer(origin, target, caller)

    def get_one(file: File) -> None:
        path, origin = _cached(file), origins[file.path]
        try:
            path.unlink(missing_ok=True)
            path.parent.mkdir(parents=True, exist_ok=True)
            pup.fetch(file.path, downloader=download)
            path.chmod(0o644)  # pooch leaves the mode of a private temporary file
        except UserError:
            raise
        except requests.RequestException as fault:
            raise UserError(f"{origin} {_reason(fault)}; try again later, or set FUSIONLAB_MIRROR") from fault
        except ValueError as fault:
            raise UserError(
                f"{origin} is not the registered file {file.path} (SHA-256 differs); it was removed from the "
                "cache; try again later, or set FUSIONLAB_MIRROR"
            ) from fault
        except OSError as fault:
            raise UserError(
                f"{path} cannot be written ({fault.strerror or 'no permission'}); mend that, or let "
                "FUSIONLAB_CACHE name another folder"
            ) from fault

    _all(get_one, files, "fetching", stopped)


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
    import requests

    def ask(file: File) -> str | None:
        for _ in range(1 + RETRIES):
            try:
                requests.head(address(file), timeout=TIMEOUT, allow_redirects=True).raise_for_status()
                return None
            except requests.RequestException as fault:
                reason = _reason(fault)
        return f"{address(file)} {reason}"

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


def _copy(origin: str, target: str, _: object) -> None:
    if not Path(origin).is_file():
        raise UserError(f"{origin} is not in the mirror; add it, or unset FUSIONLAB_MIRROR")
    Path(target).write_bytes(Path(origin).read_bytes())


def _reason(fault: "requests.RequestException") -> str:
    if fault.response is not None:
        return f"answers {fault.response.status_code} ({fault.response.reason})"
    if "timed out" in str(fault):
        return f"gave no answer for {TIMEOUT:g} s"
    if "IncompleteRead" in str(fault):
        return "broke off"
    return f"could not be fetched ({fault})"


def _all(
    work: Callable[[_Item], _Result], items: Sequence[_Item], title: str, stopped: Event | None = None
) -> list[_Result]:
    """The results in order, by threads; the first exception, Ctrl-C too, stops what has not begun.

    It sets `stopped` too, for work that can look at it.
    """
    with (
        ThreadPoolExecutor(THREADS) as pool,
        tqdm(total=len(items), desc=title, unit="file", leave=False) as bar,
    ):
        futures = [pool.submit(work, item) for item in items]
        try:
            for future in as_completed(futures):
                future.result()
                bar.update()
        finally:
            if stopped:
                stopped.set()
            pool.shutdown(wait=False, cancel_futures=True)
        return [future.result() for future in futures]
