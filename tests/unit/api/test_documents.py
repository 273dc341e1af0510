import logging
from pathlib import Path

import pytest

from kindling_api.documents import LARGEST_FILE, load, parse
from kindling_api.errors import SpecError

BUILD = """\
apiVersion: kindling.dev/v1alpha1
kind: DatasetBuild
metadata: {name: web}
spec: {sources: [{uri: builtin:python-stdlib}]}
"""
RUN = """\
apiVersion: kindling.dev/v1alpha1
kind: PretrainRun
metadata: {name: tiny}
spec:
  dataset: {name: web}
  model: {preset: llama-tiny}
  training: {steps: 10}
"""
SECRET = "apiVersion: v1\nkind: Secret\nmetadata: {name: minio}\n"


def refusal(*paths: Path) -> str:
    """What `load` says, with the folder's name cut off."""
    with pytest.raises(SpecError) as error:
        load(paths)
    return str(error.value).replace(f"{paths[0] if paths[0].is_dir() else paths[0].parent}/", "")


def write(folder: Path, text: str, name: str = "f.yaml") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def test_documents_come_in_the_order_of_the_file_with_their_lines(tmp_path: Path) -> None:
    path = write(tmp_path, f"{RUN}---\n{BUILD}")
    loaded = load([path])
    assert [one.document.metadata.name for one in loaded] == ["tiny", "web"]
    assert [one.source for one in loaded] == [f"{path}:1", f"{path}:9"]
    assert {one.folder for one in loaded} == {tmp_path}


def test_a_folder_is_its_sorted_yaml_and_json_files_without_subfolders(tmp_path: Path) -> None:
    write(tmp_path, RUN, "b.yml")
    write(tmp_path, BUILD, "a.yaml")
    write(tmp_path, "not ours", "README.md")
    (tmp_path / "inner").mkdir()
    write(tmp_path / "inner", "broken: [", "c.yaml")
    assert [one.document.kind for one in load([tmp_path])] == ["DatasetBuild", "PretrainRun"]


def test_a_file_given_twice_is_read_once(tmp_path: Path) -> None:
    path = write(tmp_path, BUILD)
    assert len(load([path, tmp_path])) == 1


def test_json_is_read_even_when_it_is_indented_with_tabs(tmp_path: Path) -> None:
    text = '{\n\t"apiVersion": "kindling.dev/v1alpha1",\n\t"kind": "DatasetBuild",\n\t"metadata": {"name": "web"},\n'
    path = write(tmp_path, text + '\t"spec": {"sources": [{"uri": "a"}]}\n}\n', "f.json")
    assert load([path])[0].document.kind == "DatasetBuild"


def test_documents_of_other_groups_are_left_out_with_a_note(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = write(tmp_path, f"{SECRET}---\n{BUILD}")
    with caplog.at_level(logging.WARNING):
        assert len(load([path])) == 1
    assert caplog.messages == [f"{path}:1: v1 Secret is not of kindling.dev and is left out"]


def test_null_fields_are_absent_fields(tmp_path: Path) -> None:
    path = write(tmp_path, RUN + "  resources:\n  evaluation: {every: null}\n")
    assert (
        load([path])[0].document.spec.document() == load([write(tmp_path, RUN, "g.yaml")])[0].document.spec.document()
    )


HEADER = "apiVersion: kindling.dev/v1alpha1\n"


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        pytest.param(
            "",
            "f.yaml: found no document of Kindling; allowed: at least one document with apiVersion:"
            " kindling.dev/v1alpha1."
            " To fix it: give other files.",
            id="empty file",
        ),
        pytest.param(
            SECRET,
            "f.yaml: found no document of Kindling; allowed: at least one document with apiVersion:"
            " kindling.dev/v1alpha1."
            " To fix it: give other files.",
            id="nothing of ours",
        ),
        pytest.param(
            "just words",
            'f.yaml:1: found "just words"; allowed: an object with apiVersion, kind, metadata and spec. To fix it:'
            " give a"
            " document of Kindling.",
            id="text",
        ),
        pytest.param(
            HEADER + "kind: DatsetBuild\n",
            'f.yaml:2: kind: found "DatsetBuild"; allowed: one of DatasetBuild, PretrainRun, AlignmentRun. To fix'
            " it: did"
            " you mean `DatasetBuild`?",
            id="misspelt kind",
        ),
        pytest.param(
            BUILD.replace("v1alpha1", "v1"),
            'f.yaml:1: apiVersion: found "kindling.dev/v1"; allowed: kindling.dev/v1alpha1. To fix it: did you mean'
            " `kindling.dev/v1alpha1`?",
            id="another version",
        ),
        pytest.param(
            BUILD.replace(HEADER, ""),
            "f.yaml:1: apiVersion: found nothing; allowed: kindling.dev/v1alpha1. To fix it: write apiVersion:"
            " kindling.dev/v1alpha1.",
            id="no version",
        ),
        pytest.param(
            "apiVersion: v1\nmetadata: {name: x}\n",
            "f.yaml:1: kind: found nothing; allowed: one of DatasetBuild, PretrainRun, AlignmentRun. To fix it:"
            " write kind:"
            " DatasetBuild.",
            id="no kind",
        ),
        pytest.param(
            BUILD.replace("{name: web}", "{}"),
            "f.yaml:3: metadata.name: found nothing; allowed: lower-case letters, digits and hyphens, a letter first,"
            " a letter or digit last, 1 to 52 characters. To fix it: add it, as in name: first.",
            id="no name",
        ),
        pytest.param(
            RUN + "  trainning: {}\n  checkpoint:\n    keep: 0\n",
            "f.yaml:8: spec.trainning: found an unknown field; allowed: activeDeadline, checkpoint, dataset,"
            " evaluation, huggingFace, image, initialize, model, parallelism, podTemplate, preflight, priority, …. To"
            " fix it: did you mean `training`? If not, remove it.\n"
            "f.yaml:10: spec.checkpoint.keep: found 0; allowed: a whole number from 1 to 1000. To fix it: use a"
            " number in"
            " this range.",
            id="two faults at once",
        ),
        pytest.param(
            RUN + "  parallelism:\n    tensor: 2\n",
            "f.yaml:8: spec.parallelism: found tensor 2 × pipeline 1 × context 1 × data 1 × replicas 1 = 2; allowed:"
            " resources.nodes × resources.processesPerNode = 1. To fix it: change the degrees, or nodes and"
            " processesPerNode, until the two products agree.",
            id="a rule between fields has its own place",
        ),
        pytest.param(
            f"{BUILD}---\n{BUILD}",
            "f.yaml:6: found DatasetBuild web a second time (first at f.yaml:1); allowed: each name once for a kind"
            " and a"
            " namespace. To fix it: rename or remove one of the two.",
            id="one name twice",
        ),
    ],
)
def test_a_bad_file_is_refused_with_line_and_remedy(text: str, sentence: str, tmp_path: Path) -> None:
    assert refusal(write(tmp_path, text)) == sentence


def test_faults_of_all_files_are_told_at_once(tmp_path: Path) -> None:
    write(tmp_path, BUILD.replace("uri", "ury"), "a.yaml")
    write(tmp_path, RUN.replace("10", "ten"), "b.yaml")
    assert [line.partition(": found")[0] for line in refusal(tmp_path).splitlines()] == [
        "a.yaml:4: spec.sources[0].uri",
        "a.yaml:4: spec.sources[0].ury",
        "b.yaml:7: spec.training.steps",
    ]


def test_a_missing_file_is_refused_with_a_near_name(tmp_path: Path) -> None:
    write(tmp_path, BUILD, "quickstart.yaml")
    assert refusal(tmp_path / "quikstart.yaml") == (
        "quikstart.yaml: found nothing there; allowed: a file or a folder that exists. To fix it: did you mean"
        " `quickstart.yaml`?"
    )


def test_an_empty_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(
        SpecError, match=r"found a folder without any; allowed: a folder with \.yaml, \.yml, \.json files"
    ):
        load([tmp_path])


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        pytest.param(
            b"\x89PNG\r\n\x1a\n\xff\xfe",
            "f.yaml: found a byte that is not UTF-8 at offset 0; allowed: YAML text in UTF-8. "
            "To fix it: save it as UTF-8, as in: iconv -f ISO-8859-1 -t UTF-8 f.yaml.",
            id="binary",
        ),
        pytest.param(
            b"a: 1\nb: \x07\n",
            "f.yaml:2: found the control character 7; allowed: YAML, which is text. To fix it: remove it, or give"
            " the right"
            " file.",
            id="control characters",
        ),
        pytest.param(
            b" " * (LARGEST_FILE + 1),
            "f.yaml: found 3145729 bytes; allowed: at most 3145728. To fix it: give a file of documents.",
            id="huge",
        ),
    ],
)
def test_a_file_that_is_no_text_is_refused(content: bytes, sentence: str, tmp_path: Path) -> None:
    path = tmp_path / "f.yaml"
    path.write_bytes(content)
    assert refusal(path) == sentence


def test_a_byte_order_mark_does_not_matter(tmp_path: Path) -> None:
    path = tmp_path / "f.yaml"
    path.write_bytes(b"\xef\xbb\xbf" + BUILD.encode())
    assert len(load([path])) == 1


def test_what_an_api_server_holds_is_parsed_with_status_and_other_metadata() -> None:
    document = parse(
        {
            "apiVersion": "kindling.dev/v1alpha1",
            "kind": "DatasetBuild",
            "metadata": {"name": "web", "uid": "1", "generation": 2, "managedFields": []},
            "spec": {"sources": [{"uri": "a"}]},
            "status": {"phase": "Running", "attempt": 1, "inventedLater": True},
        }
    )
    assert document.status is not None and document.status.phase == "Running"


def test_a_document_of_another_group_does_not_parse() -> None:
    with pytest.raises(SpecError) as error:
        parse({"apiVersion": "v1", "kind": "Secret"})
    assert str(error.value) == (
        'apiVersion: found "v1"; allowed: kindling.dev/v1alpha1. To fix it: write apiVersion: kindling.dev/v1alpha1.'
    )


@pytest.mark.parametrize(("source", "prefix"), [("", ""), ("tiny with --set", "tiny with --set: ")])
def test_data_that_were_no_text_are_refused_without_a_line(source: str, prefix: str) -> None:
    manifest = {"apiVersion": "kindling.dev/v1alpha1", "kind": "DatasetBuild", "metadata": {"name": "web"}}
    with pytest.raises(SpecError) as error:
        parse({**manifest, "spec": {"sources": [{"uri": "a", "weigth": 1}], "sed": 2}}, source=source)
    fields = [line.removeprefix(prefix).partition(": found ")[0] for line in str(error.value).splitlines()]
    assert sorted(fields) == ["spec.sed", "spec.sources[0].weigth"]
