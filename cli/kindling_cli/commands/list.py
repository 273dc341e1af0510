"""`kindling list` and `kindling prune`: what a store holds, who made and who uses it, and how to have room again."""

from __future__ import annotations

import json
import re
import sys
import time
from collections import Counter
from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.text import Text

from kindling_api.errors import ConflictError, SpecError, explain
from kindling_api.quantities import DURATION_PATTERN, seconds
from kindling_cli.figures import age, byte_size, counted
from kindling_cli.listing import listing, print_listing
from kindling_cli.product_folders import shown, storage_of
from kindling_storage import ObjectStore, open_store
from kindling_storage.inventory import Item, Verdict, discard, items_of, short_name, title, used_by, verdicts

_STYLES = {"finished": "", "damaged": "red", "unfinished": "yellow"}


def list_products(*, store: str, as_json: bool) -> None:
    """Print what lies in a store.

    Raises:
        StorageError: the store cannot be read.
    """
    whole = open_store(storage_of(store))
    items, now = items_of(whole), time.time()
    users = used_by(items)
    if as_json:
        print(json.dumps([_document(whole, item, users[item.folder], now) for item in items], indent=2))
        return
    console = Console(highlight=False)
    table = listing(console, "product", "size", "age", "key", "used by", cut_last=False)
    for item in sorted(items, key=lambda item: (item.folder.partition("/")[0], -item.modified)):
        table.add_row(*_cells(item, users[item.folder], now))
    if items:
        print_listing(console, table)
    console.print(_sum(whole, items), soft_wrap=True)


def prune(*, store: str, unused: bool, older_than: str, dry_run: bool, as_json: bool) -> None:
    """Delete what nobody uses, or say what would be deleted.

    Raises:
        SpecError: `older_than` is no length of time.
        StorageError: the store cannot be read or written.
    """
    if not re.fullmatch(DURATION_PATTERN, older_than):
        allowed, remedy = "a length of time, as in 7d, 12h or 0s", "write a number with d, h, m or s"
        raise SpecError(explain("--older-than", found=repr(older_than), allowed=allowed, remedy=remedy))
    whole, now = open_store(storage_of(store)), time.time()
    judged = verdicts(items_of(whole), now=now, older_than=seconds(older_than), unused=unused)
    judged = judged if dry_run else [_carried_out(whole, verdict) for verdict in judged]
    if as_json:
        print(json.dumps(_pruned(whole, judged, now, dry_run), indent=2))
        return
    console = Console(highlight=False)
    going = [verdict.item for verdict in judged if not verdict.stays]
    table = listing(console, "would go" if dry_run else "gone", "size", "age", "key", "state")
    for item in going:
        table.add_row(title(item), byte_size(item.size), age(now - item.modified), _key(item), item.state)
    if going:
        print_listing(console, table)
    done = "Would free" if dry_run else "Freed"
    size = byte_size(sum(item.size for item in going))
    console.print(f"{done} {size} in {counted(len(going), 'product')} of {shown(whole.uri)}.", soft_wrap=True)
    reasons = Counter(_general(verdict, older_than) for verdict in judged if verdict.stays)
    for reason, count in reasons.most_common():
        console.print(Text(f"  {count:,} stay{'s' * (count == 1)}: {reason}", "dim"), soft_wrap=True)


def _cells(item: Item, users: Sequence[Item], now: float) -> list[str | Text]:
    older = " (older)" if item.made_by is not None and item.state != "unfinished" else ""
    name = Text(", ".join(map(short_name, item.names)) or title(item) + older)
    for fault in item.faults[:1]:
        more = f", and {len(item.faults) - 1} more" if len(item.faults) > 1 else ""
        name.append(f"\ndamaged: {fault}{more}", _STYLES["damaged"])
    if item.holder is not None:
        name.append(f"\nprocess {item.holder.get('pid')} works at it", "cyan")
    elif item.state == "unfinished":
        name.append("\nunfinished", _STYLES["unfinished"])
    using = Text(", ".join(sorted({title(one) for one in users})) or ("" if item.names else "nothing"), "dim")
    return [name, byte_size(item.size), age(now - item.modified), _key(item), using]


def _sum(store: ObjectStore, items: Sequence[Item]) -> str:
    if not items:
        return f"Nothing is in {shown(store.uri)}: `kindling run` puts products there, and --store names another store."
    said = f"{counted(len(items), 'product')}, {byte_size(sum(item.size for item in items))}, in {shown(store.uri)}."
    free = [each.item for each in verdicts(items, now=sys.maxsize, older_than=0, unused=True) if not each.stays]
    if free:
        size = byte_size(sum(item.size for item in free))
        said += f" Nothing uses {len(free):,} of them ({size}): see `kindling prune --unused --dry-run`."
    return said


def _carried_out(store: ObjectStore, verdict: Verdict) -> Verdict:
    """The verdict as it is after the deletion that it allows."""
    if verdict.stays:
        return verdict
    try:
        return verdict if discard(store, verdict.item) else Verdict(verdict.item, "its name leads to it")
    except ConflictError:
        return Verdict(verdict.item, "a process works at it")


def _pruned(store: ObjectStore, judged: Sequence[Verdict], now: float, dry_run: bool) -> dict[str, Any]:
    return {
        "dryRun": dry_run,
        "freedBytes": sum(verdict.item.size for verdict in judged if not verdict.stays),
        "removed": [_document(store, verdict.item, (), now) for verdict in judged if not verdict.stays],
        "kept": [{"folder": verdict.item.folder, "reason": verdict.stays} for verdict in judged if verdict.stays],
    }


def _document(store: ObjectStore, item: Item, users: Sequence[Item], now: float) -> dict[str, Any]:
    return {
        "folder": shown(store.child(item.folder).uri),
        "kind": "Dataset" if item.folder.startswith("datasets/") else "Model",
        "state": item.state,
        "names": [short_name(name) for name in item.names],
        "madeBy": short_name(item.made_by) if item.made_by else None,
        "key": _key(item),
        "digest": item.digest,
        "bytes": item.size,
        "ageSeconds": round(now - item.modified),
        "usedBy": sorted(one.folder for one in users),
        "faults": list(item.faults),
        "process": item.holder and {name: item.holder.get(name) for name in ("pid", "host", "since")},
    }


def _general(verdict: Verdict, older_than: str) -> str:
    """The reason without the product's own particulars, to be counted."""
    if verdict.stays.endswith("was made from it"):
        return "what stays was made from it"
    if verdict.stays.endswith("works at it"):
        return "a process works at it"
    said = {"it is younger": f"written to within {older_than}", "it is finished": "finished; --unused takes it, too"}
    return said.get(verdict.stays, verdict.stays)


def _key(item: Item) -> str:
    return item.folder.partition("/")[2]
