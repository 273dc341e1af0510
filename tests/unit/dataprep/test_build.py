"""A build from files to a committed dataset, in this process."""

from __future__ import annotations

import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tokenizers import Tokenizer

from kindling_api.errors import ConflictError, DataError, SpecError
from kindling_api.v1alpha1.products import DatasetManifest
from kindling_api.v1alpha1.runfile import DatasetBuildFile, Progress
from kindling_dataprep.build import build
from kindling_dataprep.output import ledger, work
from kindling_dataprep.output.shards import read_index
from kindling_dataprep.tracker import Tracker
from kindling_runtime.progress import ProgressWriter
from kindling_storage import ObjectStore, open_store
from kindling_storage.commit import read_manifest, verify
from kindling_storage.lock import lock
from kindling_storage.names import lookup

SHAKESPEARE = Path(__file__).parents[4] / "shared/data/tinyshakespeare/input.txt"
RULES = [{"formatting": {}}, {"gopherRepetition": {}}]
AS_IT_IS = {"filters": [], "deduplicate": {"exact": False, "minHash": None}}


def run(file: DatasetBuildFile) -> tuple[ObjectStore, DatasetManifest]:
    """Builds, and returns the dataset's folder and manifest."""
    result = build(file, Tracker(ProgressWriter(None)))
    store = open_store(result.uri)
    manifest = read_manifest(store, DatasetManifest)
    assert manifest is not None
    assert manifest.digest == result.digest
    return store, manifest


def documents(store: ObjectStore, manifest: DatasetManifest, split: str) -> list[list[int]]:
    """The token ids of each document of a split."""
    found = []
    for shard in getattr(manifest, split):
        index = read_index(store.get(f"{shard.path}.idx"))
        tokens = np.frombuffer(store.get(f"{shard.path}.bin"), dtype=manifest.dtype)
        found += [index.document(tokens, number).tolist() for number in range(len(index.lengths))]
    return found


def test_the_dataset_is_whole_and_its_name_leads_to_it(corpus: Path, new_run) -> None:
    file = new_run(corpus, filters=RULES, validation={"fraction": 0.1})
    store, manifest = run(file)
    assert list(verify(store, manifest)) == []
    listed = {info.path for info in store.list()}
    assert listed == {"manifest.json", "report.html", "origin.json", *(entry.path for entry in manifest.files)}
    published = lookup(open_store(file.output), "DatasetBuild", "default", "test")
    assert published is not None
    assert (published.uri, published.digest, published.key) == (store.uri, manifest.digest, manifest.key)


def test_every_record_is_kept_or_in_the_ledger(corpus: Path, new_run) -> None:
    store, manifest = run(new_run(corpus, filters=RULES))
    removed, kept = ledger.read_removed(store).to_pylist(), ledger.read_kept(store).to_pylist()
    counts = manifest.documents
    assert counts.read == len(list(corpus.glob("*.py"))) + 301
    assert counts.read == counts.kept + sum(counts.removed.values())
    assert counts.kept == len(kept)
    assert counts.removed == Counter(row["rule"] for row in removed)
    assert len({row["id"] for row in (*removed, *kept)}) == counts.read
    by_id = {row["id"]: row for row in removed}
    assert by_id["0/zz_copy.py#1"]["rule"] == "exact"
    assert by_id["0/zz_records.jsonl#301"]["rule"] == "badRecord"
    near = next(row for row in removed if row["rule"] == "minHash")
    assert near["jaccard"] >= near["threshold"] == 0.8
    assert {row["kept"] for row in removed if row["kept"]} <= {row["id"] for row in kept}


def test_the_measures_of_every_judged_document_are_part_of_the_product(corpus: Path, new_run) -> None:
    store, _ = run(new_run(corpus, filters=RULES))
    measures = ledger.read_measures(store)
    removed, kept = ledger.read_removed(store).to_pylist(), ledger.read_kept(store).to_pylist()
    unread = {row["id"] for row in removed if row["rule"] in ("badRecord", "formatting")}
    assert set(measures["id"].to_pylist()) == {row["id"] for row in (*removed, *kept)} - unread
    by_rule = {row["id"]: row["value"] for row in removed if row["rule"] == "gopherRepetition"}
    assert {row["id"] for row in measures.to_pylist() if row["rule"] is not None} == set(by_rule) != set()
    for row in removed:
        if row["id"] in by_rule:
            position = measures["id"].to_pylist().index(row["id"])
            assert measures[f"gopherRepetition.{row['measure']}"][position].as_py() == row["value"]


def test_shards_hold_the_documents_that_stay_each_ended(corpus: Path, new_run) -> None:
    store, manifest = run(new_run(corpus, validation={"fraction": 0.2}, shards={"tokensPerShard": 3_000}))
    library = Tokenizer.from_str(store.get("tokenizer.json").decode())
    train, validation = documents(store, manifest, "train"), documents(store, manifest, "validation")
    assert len(manifest.train) > 2
    assert [shard.path for shard in manifest.train][:2] == ["train-00000", "train-00001"]
    assert len(train) + len(validation) == manifest.documents.kept
    assert sum(map(len, train)) == manifest.train_tokens
    assert all(ids[-1] == manifest.tokenizer.end_of_document for ids in train + validation)
    texts = {library.decode(ids[:-1], skip_special_tokens=False) for ids in train + validation}
    assert (corpus / "abc.py").read_text().rstrip("\n") in {text.rstrip("\n") for text in texts}


def test_characters_are_split_as_nanogpt_splits_them(tmp_path: Path, new_run) -> None:
    text = SHAKESPEARE.read_text() if SHAKESPEARE.exists() else "".join(chr(97 + i * i % 26) for i in range(10_001))
    (tmp_path / "input.txt").write_text(text)
    file = new_run(tmp_path / "input.txt", **AS_IT_IS, tokenizer={"char": {}}, validation={"tail": 0.1})
    store, manifest = run(file)
    number = {character: i for i, character in enumerate(sorted(set(text)))}  # data/shakespeare_char/prepare.py
    data = np.array([number[character] for character in text], dtype=np.uint16)
    cut = int(len(data) * 0.9)
    assert store.get("train-00000.bin") == data[:cut].tobytes()
    assert store.get("validation-00000.bin") == data[cut:].tobytes()
    assert manifest.tokenizer.end_of_document is None


def test_a_weight_repeats_the_documents_of_its_source(corpus: Path, tmp_path: Path, new_run) -> None:
    (tmp_path / "once.txt").write_text("only once")
    sources = [{"uri": str(corpus / "zz_records.jsonl"), "weight": 2.5}, {"uri": str(tmp_path / "once.txt")}]
    store, manifest = run(new_run(*sources, tokenizer={"byte": {}}, validation={"fraction": 0.0}))
    times = Counter(map(bytes, (ids[:-1] for ids in documents(store, manifest, "train"))))
    assert times.pop(b"only once") == 1
    assert set(times.values()) == {2, 3}
    assert abs(np.mean(list(times.values())) - 2.5) < 0.15


def test_a_second_build_reuses_the_first(corpus: Path, new_run) -> None:
    file = new_run(corpus)
    _, first = run(file)
    folder = Path(open_store(file.output).local_path("datasets"))
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}
    _, second = run(file)
    assert second == first
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()} == before


def test_a_dataset_that_lost_a_file_is_built_again(corpus: Path, new_run) -> None:
    file = new_run(corpus)
    store, first = run(file)
    store.delete("train-00000.bin")
    store, second = run(file)
    assert second == first
    assert list(verify(store, second)) == []


def test_a_changed_input_is_another_dataset(corpus: Path, new_run) -> None:
    file = new_run(corpus)
    _, first = run(file)
    (corpus / "abc.py").write_text("changed = True\n")
    assert run(file)[1].key != first.key


@pytest.mark.slow
def test_a_stopped_build_goes_on_from_its_finished_parts(corpus: Path, new_run, monkeypatch) -> None:
    monkeypatch.setattr("kindling_dataprep.executors.tasks.SMALLEST_TASK", 60_000)
    _, undisturbed = run(new_run(corpus, filters=RULES, store="undisturbed"))
    file = new_run(corpus, filters=RULES)

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("kindling_dataprep.build.make_tokenizer", stop)
        with pytest.raises(KeyboardInterrupt):
            build(file, Tracker(ProgressWriter(None)))
    (folder,) = Path(open_store(file.output).local_path("datasets")).iterdir()
    assert not (folder / "manifest.json").exists()
    torn, lost, *whole = sorted((folder / work.WORK).glob("clean-*.documents.parquet"))
    times = {path: path.stat().st_mtime_ns for path in (torn, lost, *whole)}
    torn.write_bytes(torn.read_bytes()[:-1])
    lost.with_name("clean-00001.json").write_text('{"files": [')

    def stop_later(*_: object) -> None:
        assert {path for path in times if path.stat().st_mtime_ns != times[path]} == {torn, lost}
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("kindling_dataprep.build.make_tokenizer", stop_later)
        with pytest.raises(KeyboardInterrupt):
            build(file, Tracker(ProgressWriter(None)))
    assert run(file)[1] == undisturbed


def test_progress_names_the_stages_and_never_goes_back(corpus: Path, new_run) -> None:
    seen: list[Progress] = []

    class Recorder(ProgressWriter):
        def write(self, progress: Progress, force: bool = False) -> None:
            seen.append(progress)

    build(new_run(corpus), Tracker(Recorder(None)))
    figures = [progress.dataset for progress in seen if progress.dataset is not None]
    assert list(dict.fromkeys(each.stage for each in figures)) == [
        "reading", "deduplicating", "tokenizer", "encoding", "writing",
    ]  # fmt: skip
    assert [each.percent for each in figures] == sorted(each.percent for each in figures)
    assert figures[-1].percent == 100


def test_too_many_bad_records_fail_with_counts_and_leave_the_ledger(tmp_path: Path, new_run) -> None:
    (tmp_path / "records.jsonl").write_text('{"text": "good enough"}\n{torn\n{"other": 1}\n')
    file = new_run(tmp_path / "records.jsonl")
    with pytest.raises(DataError) as caught:
        build(file, Tracker(ProgressWriter(None)))
    assert str(caught.value).startswith(
        "spec.badRecords.maxFraction: found 2 unreadable records out of 3 (0/records.jsonl#2 (no JSON), "
        "0/records.jsonl#3 (no string in 'text'; its fields: other)), and 6 of 43 bytes could not be read "
        "(records.jsonl: no JSON (6 bytes from byte 24 on)); allowed: 0.01 of them. "
        "To fix it: name the right field in textField, "
        f"repair the inputs (the ledger in {open_store(file.output).local_path('datasets')}/"
    )
    (folder,) = Path(open_store(file.output).local_path("datasets")).iterdir()
    rows = ledger.read_removed(open_store(folder.as_uri())).to_pylist()
    assert [row["id"] for row in rows] == ["0/records.jsonl#2", "0/records.jsonl#3"]


@pytest.mark.parametrize(
    ("content", "found"),
    [
        ("", "a.jsonl, with 0 bytes; allowed: at least one file with text"),
        ("\n\n", "no record in any file; allowed: at least one record"),
    ],
    ids=["no byte", "no record"],
)
def test_sources_without_a_record_are_refused(tmp_path: Path, new_run, content: str, found: str) -> None:
    (tmp_path / "a.jsonl").write_text(content)
    with pytest.raises(DataError) as caught:
        build(new_run(tmp_path / "a.jsonl"), Tracker(ProgressWriter(None)))
    assert str(caught.value) == f"spec.sources: found {found}. To fix it: give sources that hold text."


def test_nothing_left_fails_with_the_funnel(corpus: Path, new_run) -> None:
    file = new_run(corpus / "zz_records.jsonl", filters=[{"gopherQuality": {}}])
    with pytest.raises(DataError) as caught:
        build(file, Tracker(ProgressWriter(None)))
    assert "none left of 301 records (removed: 1 by badRecord, 300 by gopherQuality)" in str(caught.value)


def test_an_input_that_changes_while_it_is_read_fails(corpus: Path, new_run, monkeypatch) -> None:
    from kindling_dataprep import build as module

    def listing(*arguments, **options):
        found = listed(*arguments, **options)
        (corpus / "abc.py").write_text("changed = True\n")
        return found

    listed = module.list_inputs
    monkeypatch.setattr(module, "list_inputs", listing)
    with pytest.raises(
        DataError, match=r"abc\.py: found sha256:\w+; allowed: sha256:\w+\. To fix it: leave the inputs"
    ):
        build(new_run(corpus), Tracker(ProgressWriter(None)))


def test_an_input_that_vanishes_before_it_is_read_fails(corpus: Path, new_run, monkeypatch) -> None:
    from kindling_dataprep import build as module

    def listing(*arguments, **options):
        found = listed(*arguments, **options)
        (corpus / "abc.py").unlink()
        return found

    listed = module.list_inputs
    monkeypatch.setattr(module, "list_inputs", listing)
    with pytest.raises(DataError, match=r"abc\.py: found nothing; allowed: sha256:\w+"):
        build(new_run(corpus), Tracker(ProgressWriter(None)))


def test_two_builds_of_one_dataset_at_once_are_refused(corpus: Path, new_run) -> None:
    file = new_run(corpus)
    store, manifest = run(file)
    store.delete("manifest.json")
    with lock(store, "lock"), pytest.raises(ConflictError, match="one writer at a time"):
        build(file, Tracker(ProgressWriter(None)))
    assert run(file)[1] == manifest


def test_what_cannot_be_done_is_refused_before_anything_is_read(tmp_path: Path, new_run) -> None:
    with pytest.raises(SpecError, match=r"spec\.filters\[0\]\.language\.keep"):
        build(new_run(tmp_path / "absent", filters=[{"language": {"keep": ["xx"]}}]), Tracker(ProgressWriter(None)))


def test_another_folder_gives_the_same_manifest(corpus: Path, tmp_path: Path, new_run) -> None:
    _, one = run(new_run(corpus / "*.py", {"uri": str(corpus / "zz_records.jsonl")}))
    other = shutil.copytree(corpus, tmp_path / "elsewhere" / corpus.name)
    store, same = run(new_run(other / "*.py", {"uri": str(other / "zz_records.jsonl")}, store="other"))
    assert one.to_bytes() == same.to_bytes()
    assert not [each.path for each in same.files if str(tmp_path).encode() in store.get(each.path)]


def test_another_store_and_engine_give_the_same_manifest(corpus: Path, new_run) -> None:
    _, one = run(new_run(corpus, engine={"workers": 1}))
    _, other = run(new_run(corpus, store="other", engine={"workers": 2}))
    assert one.to_bytes() == other.to_bytes()
    assert "engine" not in one.spec


@pytest.mark.slow
def test_wherever_files_are_cut_the_tokens_and_the_ledger_are_the_same(corpus: Path, new_run, monkeypatch) -> None:
    texts = [f"Row {number} of the table says {number * number}." for number in range(400)]
    pq.write_table(pa.table({"text": texts}), corpus / "zz_rows.parquet", row_group_size=60)
    found = []
    for span_bytes, task_bytes in ((10**9, 10**9), (500, 10_000)):
        with monkeypatch.context() as patch:
            patch.setattr("kindling_dataprep.steps.scan.SPAN_BYTES", span_bytes)
            patch.setattr("kindling_dataprep.executors.tasks.SMALLEST_TASK", task_bytes)
            patch.setattr("kindling_dataprep.executors.tasks.LARGEST_TASK", task_bytes)
            file = new_run(corpus, filters=[*RULES, {"gopherQuality": {"minWords": 8}}], store=f"store-{task_bytes}")
            store, manifest = run(file)
        files = {entry.path: entry.digest for entry in manifest.files if "/" not in entry.path}
        tables = ledger.read_removed(store).to_pylist(), ledger.read_kept(store).to_pylist()
        found.append((files, manifest.documents, tables, ledger.read_measures(store).to_pylist()))
        parts = [entry.path for entry in manifest.files if entry.path.startswith("kept/")]
        assert len(parts) == 1 if task_bytes == 10**9 else len(parts) > 5
    assert found[0] == found[1]


@pytest.fixture
def near_copies(tmp_path: Path) -> Path:
    """Two clusters: good prose, the same a little shorter, and the same made longer by numbers."""
    (tmp_path / "near").mkdir()
    for cluster in "ab":
        names = (str(number).translate(str.maketrans("0123456789", "abcdefghij")) for number in range(100, 180))
        words = " ".join(f"the {cluster}river{name} of" for name in names)
        texts = {"better": words, "shorter": words.rsplit(" ", 5)[0], "longer": words + " 1 2 3 4 5 6 7 8 9"}
        for name, text in texts.items():
            (tmp_path / f"near/{cluster}-{name}.txt").write_text(f"{text}.\n")
    return tmp_path / "near"


@pytest.mark.parametrize(("keep", "stays"), [("longest", "longer"), ("best", "better")])
def test_of_near_duplicates_the_one_asked_for_stays(near_copies: Path, new_run, keep: str, stays: str) -> None:
    filters = [{"gopherQuality": {}}, {"fineWeb": {}}]
    file = new_run(near_copies, filters=filters, deduplicate={"minHash": {"keep": keep}}, tokenizer={"byte": {}})
    store, manifest = run(file)
    assert [row["id"] for row in ledger.read_kept(store).to_pylist()] == [f"0/{each}-{stays}.txt#1" for each in "ab"]
    assert manifest.documents.removed == {"minHash": 4}
    for row in ledger.read_removed(store).to_pylist():
        assert row["kept"] == f"{row['id'][:3]}-{stays}.txt#1"
        assert row["jaccard"] >= row["threshold"] == 0.8


@pytest.mark.slow
def test_the_best_is_the_same_whatever_the_workers(near_copies: Path, new_run, monkeypatch) -> None:
    monkeypatch.setattr("kindling_dataprep.executors.tasks.SMALLEST_TASK", 1)
    monkeypatch.setattr("kindling_dataprep.executors.WORTH_STARTING_RAY", 0)
    fields = {"filters": [{"gopherQuality": {}}], "tokenizer": {"byte": {}}}
    fields |= {"deduplicate": {"minHash": {"bands": 8, "keep": "best"}}}
    found = [
        run(new_run(near_copies, **fields, store=f"store-{workers}", engine={"workers": workers}))[1]
        for workers in (1, 2)
    ]
    assert found[0].documents.removed == {"minHash": 4}
    assert found[0].to_bytes() == found[1].to_bytes()


@pytest.mark.slow
def test_the_same_build_over_s3_has_the_same_manifest(corpus: Path, new_run, new_bucket) -> None:
    _, local = run(new_run(corpus))
    bucket = new_bucket("moto")
    file = new_run(corpus, store=bucket.uri + "/here")
    file = file.model_copy(update={"output": file.output.model_copy(update={"endpoint": bucket.endpoint})})
    assert build(file, Tracker(ProgressWriter(None))).digest == local.digest


def test_lines_are_taken_out_before_documents_are_judged(tmp_path: Path, new_run) -> None:
    notice = "This site uses cookies.\n"
    prose = "The river rose. It fell again. The mill stood still. We slept well. It was over.\n"
    texts = {"good": notice + prose, "code": prose + "It is a {brace} at last.\n", "menu": "Home\nAbout\n" + notice}
    for name, text in texts.items():
        (tmp_path / f"{name}.txt").write_text(text)
    store, manifest = run(new_run(tmp_path / "*.txt", filters=[{"c4": {}}], tokenizer={"byte": {}}))
    removed = {row["id"]: (row["rule"], row["measure"]) for row in ledger.read_removed(store).to_pylist()}
    assert removed == {"0/code.txt#1": ("c4", "curlyBrackets"), "0/menu.txt#1": ("c4", "characters")}
    assert bytes(documents(store, manifest, "train")[0][:-1]).decode() == prose.rstrip("\n")
    assert "c4 took 4 lines out of documents" in store.get("report.html").decode()


def test_the_ledger_says_in_which_language_a_removed_document_is(tmp_path: Path, new_run) -> None:
    (tmp_path / "en.txt").write_text("All human beings are born free and equal in dignity and rights.")
    (tmp_path / "de.txt").write_text("Alle Menschen sind frei und gleich an Würde und Rechten geboren.")
    store, _ = run(new_run(tmp_path / "*.txt", filters=[{"language": {}}], tokenizer={"byte": {}}))
    (row,) = ledger.read_removed(store).to_pylist()
    assert (row["id"], row["rule"], row["measure"], row["threshold"]) == ("0/de.txt#1", "language", "language=de", None)
