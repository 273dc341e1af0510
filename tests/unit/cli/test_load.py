"""Documents as the command line sees them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from kindling_api.errors import DataError, SpecError
from kindling_api.v1alpha1.dataset_build import DatasetBuild
from kindling_api.v1alpha1.pretrain_run import PretrainRun
from kindling_cli.load import choose, load_documents, load_with_places

Text = Callable[..., str]
Write = Callable[..., Path]


def source_of(file: Path, *sets: str) -> str:
    (document,) = load_documents([file], sets)
    assert isinstance(document, DatasetBuild)
    return document.spec.sources[0].uri


def test_a_path_in_a_file_is_relative_to_the_file(
    write: Write, dataset: Text, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = write(dataset("text"))
    monkeypatch.chdir("/")
    assert source_of(file) == f"{tmp_path}/text.txt"


def test_a_path_is_the_same_from_wherever_its_file_is_named(
    write: Write, dataset: Text, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = write(dataset("text").replace("text.txt", "./in/../text.txt"))
    (tmp_path / "beside").mkdir()
    monkeypatch.chdir(tmp_path / "beside")
    assert source_of(Path("../run.yaml")) == source_of(file) == f"{tmp_path}/text.txt"


def test_a_path_on_the_command_line_is_relative_to_the_working_folder(
    write: Write, dataset: Text, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = write(dataset("text"))
    monkeypatch.chdir("/usr")
    assert source_of(file, "text:spec.sources[0].uri=share/*.txt") == "/usr/share/*.txt"


@pytest.mark.parametrize("uri", ["s3://raw/a.txt", "file:///a.txt", "builtin:python-stdlib", "/a.txt"])
def test_what_is_no_relative_path_stays(write: Write, dataset: Text, uri: str) -> None:
    assert source_of(write(dataset("text").replace("text.txt", f"'{uri}'"))) == uri


def test_set_may_replace_one_of_several_choices_whole(write: Write, dataset: Text) -> None:
    (document,) = load_documents([write(dataset("text"))], ["text:spec.tokenizer={char: {}}"])
    assert isinstance(document, DatasetBuild)
    assert document.spec.tokenizer.chosen[0] == "char"


def test_a_value_that_is_not_allowed_is_refused_as_in_a_file(write: Write, dataset: Text, pretrain: Text) -> None:
    file = write(dataset("text"), pretrain("model", "text"))
    with pytest.raises(SpecError) as error:
        load_documents([file], ["model:spec.training.stepz=5"])
    assert str(error.value).startswith("PretrainRun/model with --set: spec.training.stepz: found an unknown field;")
    assert "did you mean `steps`?" in str(error.value)


@pytest.mark.parametrize("option", ["--set", "--only"])
def test_a_name_that_no_document_has_is_refused(write: Write, dataset: Text, pretrain: Text, option: str) -> None:
    file = write(dataset("text"), pretrain("model", "text"))
    with pytest.raises(SpecError) as error:
        if option == "--set":
            load_documents([file], ["modell:spec.seed=1"])
        else:
            choose(load_documents([file]), ["modell"])
    assert str(error.value) == (
        f"{option}: found 'modell'; allowed: DatasetBuild/text, PretrainRun/model. To fix it: did you mean `model`?"
    )


def test_only_takes_a_name_or_kind_and_name(write: Write, dataset: Text, pretrain: Text) -> None:
    documents = load_documents([write(dataset("same"), pretrain("same", "same"))])
    assert len(choose(documents, ["same"])) == 2
    (chosen,) = choose(documents, ["PretrainRun/same"])
    assert isinstance(chosen, PretrainRun)


def test_what_no_single_document_shows_is_told_with_file_and_line(
    write: Write, dataset: Text, pretrain: Text, alignment: Text, tmp_path: Path
) -> None:
    file = write(dataset("text"), pretrain("model", "text"), alignment("chat", "model"))
    _, places = load_with_places([file])
    for said, placed in [
        ("PretrainRun/model: spec.dataset.name: found x", f"{file}:13: PretrainRun/model: spec.dataset.name: found x"),
        ("AlignmentRun/chat: spec.data[0].uri: found x", f"{file}:23: AlignmentRun/chat: spec.data[0].uri: found x"),
        ("DatasetBuild/text: found x\nno name", f"{file}:2: DatasetBuild/text: found x\nno name"),
        ("--only: found x", "--only: found x"),
    ]:
        with pytest.raises(DataError) as error, places.named():
            raise DataError(said)
        assert str(error.value) == placed
