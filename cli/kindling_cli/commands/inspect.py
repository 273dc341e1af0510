"""`kindling inspect`: what a product holds, where it came from, whether it is whole."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from kindling_api.errors import IntegrityError, SpecError, explain, near
from kindling_api.v1alpha1.products import INPUTS, MANIFEST, CheckpointManifest, DatasetManifest, ModelManifest
from kindling_cli.figures import byte_size, counted, short_count, short_digest
from kindling_cli.key_value_table import key_value_table
from kindling_cli.listing import listing, print_listing
from kindling_cli.product_folders import PRODUCTS, ProductFolder, find, shown
from kindling_cli.products import AnyManifest, Dataset, base_of, dataset_of, inputs_of, read_product
from kindling_storage import ObjectStore, open_store
from kindling_storage.commit import verify as problems_of

INPUTS_SHOWN = 5
BAR_WIDTH = 24


def inspect_product(
    what: str,
    *,
    store: str,
    kept: bool,
    removed: bool,
    rule: str | None,
    shard: str | None,
    document: int,
    limit: int,
    verify: bool,
    as_json: bool = False,
) -> None:
    """Print what is asked of the product that `what` means.

    Raises:
        SpecError: there is no such product, rule, shard or document.
        IntegrityError: with `verify`, a file is not as its manifest says.
    """
    console = Console(highlight=False)
    of_dataset = kept or removed or rule is not None or shard is not None
    place = find(what, store, ("DatasetBuild",) if of_dataset else PRODUCTS)
    if (removed or rule is not None) and (unfinished := _unfinished(place.store)) is not None:
        _show_removed(console, unfinished, rule, limit, as_json=as_json)
        return
    manifest = read_product(place.store)
    if of_dataset and not isinstance(manifest, DatasetManifest):
        allowed = "a dataset for --kept, --removed, --rule and --shard"
        raise SpecError(explain(repr(what), found=f"a {manifest.kind}", allowed=allowed, remedy="name a dataset"))
    if isinstance(manifest, DatasetManifest) and of_dataset:
        dataset = Dataset(place.store, manifest)
        if shard is not None:
            _show_document(console, dataset, shard, document, as_json=as_json)
        elif kept:
            _show_kept(console, dataset, limit, as_json=as_json)
        else:
            _show_removed(console, dataset.store, rule, limit, as_json=as_json)
    elif verify:
        _verify(console, place, manifest, as_json=as_json)
    elif as_json:
        print(json.dumps({"folder": place.shown, "digest": manifest.digest, **manifest.document()}, indent=2))
    else:
        _show_summary(console, place, manifest)


def _show_summary(console: Console, place: ProductFolder, manifest: AnyManifest) -> None:
    if isinstance(manifest, DatasetManifest):
        _show_dataset(console, place, manifest)
    else:
        _show_model(console, place, manifest)
    _show_lineage(console, place, manifest)


def _show_dataset(console: Console, place: ProductFolder, manifest: DatasetManifest) -> None:
    tokenizer, counts = manifest.tokenizer, manifest.documents
    size = sum(file.size for file in manifest.files)
    pairs = [
        ("folder", place.shown),
        ("digest", manifest.digest),
        ("tokens", f"{manifest.train_tokens:,} to train on, {manifest.validation_tokens:,} to validate"),
        ("tokenizer", f"{tokenizer.kind}, vocabulary {tokenizer.vocab_size:,}"),
        ("files", f"{len(manifest.files)}, {byte_size(size)}, tokens as {manifest.dtype}"),
        ("shards", _listed([shard.path for shard in (*manifest.train, *manifest.validation)])),
    ]
    console.print(Text("Dataset", "bold"), key_value_table(pairs), sep="\n")
    funnel = [("read", counts.read), *((f"− {rule}", count) for rule, count in counts.removed.items())]
    table = Table.grid(padding=(0, 2, 0, 0))
    for name, count in [*funnel, ("kept", counts.kept)]:
        bar = "━" * max(1, round(BAR_WIDTH * count / max(1, counts.read))) if count else ""
        style = "cyan" if name in ("read", "kept") else "yellow"
        table.add_row(Text(f"  {name}"), Text(f"{count:,}", justify="right"), Text(bar, style))
    console.print(Text("\nDocuments", "bold"), table, sep="\n")


def _show_model(console: Console, place: ProductFolder, manifest: ModelManifest | CheckpointManifest) -> None:
    shape = manifest.shape
    step = manifest.steps if isinstance(manifest, ModelManifest) else manifest.step
    pairs = [
        ("folder", place.shown),
        ("digest", manifest.digest),
        ("shape", f"{shape.architecture}, {counted(shape.layers, 'layer')}, width {shape.width}, {shape.heads} heads"),
        ("context", f"{shape.context:,} tokens, vocabulary {manifest.vocab_size:,}"),
        ("trained", f"{counted(step, 'step')}, {short_count(manifest.tokens)} tokens"),
        ("files", f"{len(manifest.files)}, {byte_size(sum(file.size for file in manifest.files))}"),
    ]
    if isinstance(manifest, ModelManifest):
        pairs += [
            (name, f"{value:.4f}")
            for name, value in (("loss", manifest.loss), ("validation", manifest.validation_loss))
            if value is not None
        ]
        figures = {name: value for name, value in (manifest.evaluation or {}).items() if name != "validation_loss"}
        pairs += [(name.replace("_", " "), f"{value:.4f}") for name, value in figures.items()]
    console.print(Text(manifest.kind, "bold"), key_value_table(pairs), sep="\n")


def _show_lineage(console: Console, place: ProductFolder, manifest: AnyManifest) -> None:
    """From the product back to the raw files."""
    console.print(Text("\nLineage", "bold"))
    if isinstance(manifest, DatasetManifest):
        dataset = Dataset(place.store, manifest)
    else:
        console.print(f"  {manifest.kind.lower()}  {short_digest(manifest.digest)}", markup=False)
        store = place.store
        while isinstance(manifest, ModelManifest) and manifest.inputs is not None:
            _show_inputs(console, [entry.document() for entry in manifest.inputs], "data  ", "manifest.json")
            if (base := base_of(store, manifest)) is None:
                known = (
                    f"{short_digest(manifest.base)}, not in this store" if manifest.base else "a Hugging Face folder"
                )
                console.print(f"  ← base     {known}", markup=False)
                return
            store, manifest = base
            line = f"  ← base     {short_digest(manifest.digest)}  {shown(store.uri)}"
            console.print(line, markup=False, soft_wrap=True)
        found = dataset_of(store, manifest)
        if found is None:
            console.print(f"  ← dataset  {short_digest(manifest.dataset)}, no longer where it was", markup=False)
            return
        dataset = found
    where = shown(dataset.store.uri)
    console.print(f"  ← dataset  {short_digest(dataset.manifest.digest)}  {where}", markup=False, soft_wrap=True)
    _show_inputs(console, inputs_of(dataset), "inputs", f"{where}/{INPUTS}")


def _show_inputs(console: Console, inputs: list[dict[str, Any]], name: str, all_in: str) -> None:
    size = sum(int(entry["size"]) for entry in inputs)
    console.print(f"  ← {name}   {counted(len(inputs), 'file')}, {byte_size(size)}", markup=False)
    for entry in inputs[:INPUTS_SHOWN]:
        line = f"             {short_digest(entry['digest'])}  {shown(entry['path'])}"
        console.print(Text(line, "dim"), soft_wrap=True)
    if len(inputs) > INPUTS_SHOWN:
        console.print(Text(f"             … all of them in {all_in}", "dim"), soft_wrap=True)


def _unfinished(store: ObjectStore) -> ObjectStore | None:
    """The folder of a build that failed or is under way, where it has a ledger: given itself, or by its `removed`."""
    from kindling_dataprep.output.ledger import REMOVED  # not above: Arrow takes time to load

    folder = open_store(store.uri.removesuffix(f"/{REMOVED}"))
    there = not folder.exists(MANIFEST) and any(folder.list(f"{REMOVED}/part-"))
    return folder if there else None


def _show_kept(console: Console, dataset: Dataset, limit: int, *, as_json: bool) -> None:
    from kindling_dataprep.output.ledger import read_kept

    rows = read_kept(dataset.store, ["id", "words", "tokens", "excerpt"]).slice(0, limit).to_pylist()
    if as_json:
        print(json.dumps(rows, indent=2, ensure_ascii=False))
        return
    table = listing(console, "document", "words", "tokens", "beginning")
    for row in rows:
        table.add_row(row["id"], f"{row['words']:,}", f"{row['tokens']:,}", Text(row["excerpt"], "dim"))
    print_listing(console, table)
    console.print(f"{len(rows)} of {dataset.manifest.documents.kept:,} kept documents.")


def _show_removed(console: Console, store: ObjectStore, rule: str | None, limit: int, *, as_json: bool) -> None:
    from kindling_dataprep.output.ledger import read_removed

    everything = read_removed(store).to_pylist()
    if rule is not None and all(row["rule"] != rule for row in everything):
        rules = sorted({row["rule"] for row in everything})
        meant = near(rule, rules)
        remedy = f"did you mean `{meant}`?" if meant else "name a rule that removed something"
        allowed = ", ".join(rules) or "none: nothing was removed"
        raise SpecError(explain("--rule", found=repr(rule), allowed=allowed, remedy=remedy))
    rows = [row for row in everything if rule in (None, row["rule"])]
    if as_json:
        print(json.dumps(rows[:limit], indent=2, ensure_ascii=False))
        return
    table = listing(console, "document", "rule", "value", "threshold", "kept instead, or beginning")
    for row in rows[:limit]:
        reason = f"{row['rule']}: {row['measure']}"
        instead = Text(f"= {row['kept']}") if row["kept"] else Text(row["excerpt"], "dim")
        table.add_row(row["id"], reason, _number(row["value"]), _number(row["threshold"]), instead)
    print_listing(console, table)
    console.print(f"{min(limit, len(rows)):,} of {len(rows):,} removed documents{f' by {rule}' if rule else ''}.")


def _show_document(console: Console, dataset: Dataset, name: str, number: int, *, as_json: bool) -> None:
    import numpy as np
    from tokenizers import Tokenizer

    from kindling_dataprep.output.shards import read_index

    shards = [shard.path for shard in (*dataset.manifest.train, *dataset.manifest.validation)]
    if name not in shards:
        raise SpecError(
            explain("--shard", found=repr(name), allowed=_listed(shards), remedy="name one of these shards")
        )
    index = read_index(dataset.store.get(f"{name}.idx"))
    if number >= len(index.lengths):
        allowed = f"0 to {len(index.lengths) - 1}, the documents of {name}"
        raise SpecError(explain("--document", found=number, allowed=allowed, remedy="use a number in this range"))
    itemsize = np.dtype(index.dtype).itemsize
    length = int(index.lengths[number])
    data = dataset.store.get_range(f"{name}.bin", int(index.pointers[number]), length * itemsize)
    tokens = np.frombuffer(data, index.dtype).tolist()
    tokenizer = Tokenizer.from_str(dataset.store.get(dataset.manifest.tokenizer.path).decode())
    text = tokenizer.decode(tokens, skip_special_tokens=False)
    if as_json:
        print(json.dumps({"shard": name, "document": number, "tokens": tokens, "text": text}, ensure_ascii=False))
        return
    console.print(Text(f"{name}, document {number} of {len(index.lengths):,}: {length:,} tokens", "bold"))
    console.print(Text(f"first tokens: {' '.join(map(str, tokens[:16]))} …", "dim"))
    console.print(text, markup=False, soft_wrap=True)


def _verify(console: Console, place: ProductFolder, manifest: AnyManifest, *, as_json: bool) -> None:
    problems = list(problems_of(place.store, manifest))
    if problems:
        first = f"{place.shown}: {len(problems)} of {len(manifest.files)} files are not as the manifest says"
        remedy = "To fix it: delete these files, and run the document again; what is whole is used again."
        raise IntegrityError("\n  ".join([first, *problems, remedy]))
    if as_json:
        print(json.dumps({"folder": place.shown, "digest": manifest.digest, "verifiedFiles": len(manifest.files)}))
        return
    size = byte_size(sum(file.size for file in manifest.files))
    console.print(f"{place.shown}: all {len(manifest.files)} files, {size}, are as the manifest says.", soft_wrap=True)


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"


def _listed(names: Iterable[str], most: int = 6) -> str:
    names = list(names)
    return ", ".join(names[:most]) + (f", … ({len(names)} in all)" if len(names) > most else "")
