"""`harness cache`: list, clear."""

from __future__ import annotations

import time
from datetime import datetime
from typing import Annotated

import typer
from rich.filesize import decimal
from rich.table import Table

from harness.cli.app import app, console
from harness.config import did_you_mean
from harness.errors import DataError
from harness.store.cache_folders import cache_folder
from harness.store.cache_room import CacheEntry, cache_entries, remove_cache, remove_leftovers, size_limit

cache = typer.Typer(no_args_is_help=True, help="List and clear decoded frames and features ($HARNESS_CACHE).")
app.add_typer(cache, name="cache")

_DAY = 86400


@cache.command("list")
def list_() -> None:
    """Show what is kept, longest unused first: the order in which it goes when $HARNESS_CACHE_GB is reached."""
    entries = cache_entries()
    if not entries:
        console.print(f"{cache_folder()} holds nothing", highlight=False, soft_wrap=True)
        return
    # the name says what it is, of which data set (content, hashed), split and size; whole, since `clear` takes it
    table = Table("name", "size", "last used", "in use", box=None, pad_edge=False)
    table.columns[0].no_wrap = True
    for entry in entries:
        used = datetime.fromtimestamp(entry.last_used).strftime("%m-%d %H:%M")
        table.add_row(entry.folder.name, decimal(entry.size), used, "yes" if entry.in_use else "no")
    total, limit = decimal(sum(entry.size for entry in entries)), decimal(size_limit())
    console.print(table)
    console.print(f"{total} of at most {limit} in {cache_folder()}", highlight=False, soft_wrap=True)


@cache.command()
def clear(
    names: Annotated[list[str] | None, typer.Argument(help="Names as `harness cache list` shows them.")] = None,
    all_: Annotated[bool, typer.Option("--all", help="Everything that is not in use.")] = False,
    older_than: Annotated[float | None, typer.Option(min=0, help="Only what was not used for this many days.")] = None,
) -> None:
    """Remove decoded frames and features; what a running process uses stays. Removed frames are decoded anew."""
    chosen = _chosen(names or [], all_, older_than)
    freed = remove_leftovers()
    if freed:
        console.print(f"removed what killed processes left ({decimal(freed)})", highlight=False)
    for entry in chosen:
        name, removed = entry.folder.name, remove_cache(entry.folder)
        freed += entry.size if removed else 0
        said = f"removed {name} ({decimal(entry.size)})" if removed else f"kept {name}: in use"
        console.print(said, highlight=False, soft_wrap=True)
    console.print(f"{decimal(freed)} freed in {cache_folder()}", highlight=False, soft_wrap=True)


def _chosen(names: list[str], all_: bool, older_than: float | None) -> list[CacheEntry]:
    if all_ and (names or older_than is not None):
        raise DataError("--all removes everything that is not in use; leave out the names and --older-than, or --all")
    if not (names or all_ or older_than is not None):
        raise DataError("nothing was chosen; give names from `harness cache list`, --older-than DAYS, or --all")
    entries = {entry.folder.name: entry for entry in cache_entries()}
    for name in names:
        # only what was found in the folder can be named: no path leads out of it
        if name not in entries:
            raise DataError(f"'{name}' is no cache in {cache_folder()}{did_you_mean(name, entries or ['nothing'])}")
    before = time.time() - (older_than or 0) * _DAY
    chosen = [entries[name] for name in dict.fromkeys(names)] if names else list(entries.values())
    return [entry for entry in chosen if entry.last_used <= before]
