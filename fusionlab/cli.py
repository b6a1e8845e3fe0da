"""The command line: `fusionlab fuse | evaluate | run | reproduce | report | promote | doctor`.

Torch and everything that needs it is imported inside the commands, so that `fusionlab --help` answers at once.
"""

import os
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from typer.core import TyperGroup

from fusionlab import __version__
from fusionlab.errors import UserError

IMAGES = {".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff"}
Profile = Literal["auto", "smoke", "laptop", "gpu", "paper"]


class Friendly(TyperGroup):
    """Turns a user's mistake into one line on stderr and exit code 1; a real bug keeps its traceback."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except UserError as error:
            reason = str(error)
        except OSError as error:
            if error.filename is None:
                raise
            reason = f"{error.filename}: {error.strerror}"
        typer.echo(f"error: {reason}", err=True)
        raise typer.Exit(1)


app = typer.Typer(
    cls=Friendly, no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None
)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"fusionlab {__version__}")
        raise typer.Exit


@app.callback()
def fusionlab(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Fuse infrared and visible images, score the result, reproduce the papers' tables.

    \b
    Examples:
      fusionlab fuse ir.png vi.png -o fused.png
      fusionlab fuse tno/ir tno/vis -o fused --method laplacian
      fusionlab evaluate tno/ir tno/vis fused --convention wang --csv scores.csv
      fusionlab run 00 --profile smoke
      fusionlab reproduce --list
      fusionlab doctor
    """


# --- images in files and folders ---------------------------------------------------------------------------


def matched(roles: dict[str, Path]) -> tuple[dict[str, list[Path]], dict[str, str]]:
    """The images with one stem in every role, and the reason for each stem that is left out.

    `roles` maps "infrared", "visible", ... to all files (one match) or all folders. Raises UserError where a
    path is missing, files and folders are mixed, or no image is found at all.
    """
    for role, path in roles.items():
        if not path.exists():
            raise UserError(f"{path}: no such file or folder; give the {role} image, or the folder of them")
    folders = {role: path for role, path in roles.items() if path.is_dir()}
    if not folders:
        return {roles["visible"].stem: list(roles.values())}, {}
    if folders != roles:
        files = ", ".join(str(path) for path in roles.values() if not path.is_dir())
        raise UserError(f"{files} beside a folder: give only files or only folders")
    found = {role: _by_stem(folder) for role, folder in folders.items()}
    whole: dict[str, list[Path]] = {}
    left: dict[str, str] = {}
    for stem in sorted(set().union(*found.values())):
        absent = [str(folders[role]) for role, images in found.items() if stem not in images]
        double = [path for images in found.values() if len(images.get(stem, [])) > 1 for path in images[stem]]
        if absent:
            left[stem] = f"no image of this name in {' and '.join(absent)}"
        elif double:
            left[stem] = f"more than one image of this name: {', '.join(map(str, double))}"
        else:
            whole[stem] = [images[stem][0] for images in found.values()]
    if not whole and not left:
        raise UserError(f"no images ({', '.join(sorted(IMAGES))}) in {', '.join(map(str, folders.values()))}")
    return whole, left


def _by_stem(folder: Path) -> dict[str, list[Path]]:
    images: dict[str, list[Path]] = {}
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() in IMAGES and not path.name.startswith("."):
            images.setdefault(path.stem, []).append(path)
    return images


def attempt(names: Iterable[str], work: Callable[[str], None], doing: str) -> dict[str, str]:
    """Does `work` for each name behind a progress bar on stderr; the reasons of those that could not be done."""
    from tqdm import tqdm

    failed = {}
    for name in tqdm(list(names), desc=doing, unit="pair"):
        try:
            work(name)
        except (UserError, OSError) as error:
            failed[name] = str(error)
    return failed


def _finish(done: int, failed: dict[str, str], summary: str) -> None:
    """Names what was left out on stderr, prints the count, and leaves with exit code 1 where anything failed."""
    for name, reason in sorted(failed.items()):
        typer.echo(f"skipped {name}: {reason}", err=True)
    typer.echo(f"{done} of {done + len(failed)} {summary}")
    if failed:
        raise typer.Exit(1)


def _refuse_overwriting(output: Path, sources: Iterable[Path]) -> None:
    for source in sources:
        if output.exists() and output.samefile(source):
            raise UserError(f"{output} is one of the input images; choose another output")
