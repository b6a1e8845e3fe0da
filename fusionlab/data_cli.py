"""The commands `fusionlab data list | get | verify`."""

from collections import Counter
from typing import Annotated

import typer

from fusionlab.paths import printable

data_app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="List, fetch and verify data sets.")
Split = Annotated[str | None, typer.Option(metavar="SPLIT", help="Only this split.")]


@data_app.command("list")
def list_sets() -> None:
    """List the registered sets.

    How much of each is registered ("20 of 1444 pairs"), its splits, and how many of its files are at hand, by
    name; `fusionlab data verify` reads them.
    """
    from fusionlab.data.copies import locate
    from fusionlab.data.registry import choose, datasets

    for name, dataset in datasets().items():
        files = choose(name)
        splits = Counter(split for split, _ in {(file.split, file.pair) for file in files})
        parts = ", ".join(f"{split} {count}" for split, count in sorted(splits.items()))
        here = sum(locate(file) is not None for file in files)
        size = sum(file.bytes for file in files if file.repository) / 1e6
        typer.echo(
            f"{name:<10} {dataset.size():<24} {size:>5.1f} MB  {here} of {len(files)} files here  ({parts})"
        )


@data_app.command("get")
def get_set(
    name: Annotated[str, typer.Argument(help="A registered set, such as tno.")],
    split: Split = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask about the terms.")] = False,
) -> None:
    """Fetch a set into the cache and verify it.

    From FUSIONLAB_MIRROR where that names a folder or address, else from the sources. Licence and citation
    are shown, and confirmed once a set. Verified files are not fetched again; a wrong one is removed.

    \b
    Examples:
      fusionlab data get roadscene --split test
      fusionlab data get mmdrfuse --yes
    """
    from fusionlab import paths
    from fusionlab.data import fetch
    from fusionlab.data.registry import choose, datasets
    from fusionlab.errors import UserError

    files = [file for file in choose(name, split) if file.repository]
    if not files:
        raise UserError(f"{name}, split {split}, is not fetched but made here; leave out --split")
    wanted = fetch.missing(files)
    if wanted:
        dataset = datasets()[name]
        typer.echo(f"{name}: {dataset.size(split)}\nlicence: {dataset.licence}")
        typer.echo(f"please cite: {dataset.citation}")
        agreed = yes or any(map(fetch.is_cached, choose(name)))
        size = sum(file.bytes for file in wanted) / 1e6
        if not agreed and not typer.confirm(
            f"Fetch {len(wanted)} files ({size:.1f} MB) on these terms (--yes agrees)?"
        ):
            raise UserError(f"nothing of {name} was fetched")
        fetch.get(wanted)
    place = paths.cache() / name
    typer.echo(f"{len(files)} of {len(files)} files verified in {place}, {len(wanted)} fetched now")


@data_app.command("verify")
def verify_sets(
    names: Annotated[list[str] | None, typer.Argument(metavar="[NAME]...", help="Sets; all if none.")] = None,
    split: Split = None,
    online: Annotated[bool, typer.Option("--online", help="Ask the addresses instead.")] = False,
) -> None:
    """Check size and SHA-256 of every file at hand.

    A file in the cache with other bytes is removed. With --online nothing is read or fetched: each address is
    asked whether it is alive. Exit code 1 where anything is wrong or missing.

    \b
    Examples:
      fusionlab data verify tno
      fusionlab data verify --online
    """
    from fusionlab.data import fetch
    from fusionlab.data.registry import choose, datasets

    failed = False
    for name in names or datasets():
        files = choose(name, split)
        if online:
            files = [file for file in files if file.repository]
        faults = fetch.dead(files) if online else fetch.verify(files)
        for fault in faults:
            typer.echo(f"error: {printable(fault)}", err=True)
        count = len({(file.role, file.pair) for file in files})
        what = "addresses alive" if online else "files verified"
        size = datasets()[name].size(split)
        typer.echo(f"{name}: {count - len(faults)} of {count} {what} ({size})")
        failed = failed or bool(faults)
    if failed:
        raise typer.Exit(1)
