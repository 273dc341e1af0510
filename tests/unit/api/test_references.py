from collections.abc import Callable
from itertools import permutations
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kindling_api.documents import Document
from kindling_api.errors import SpecError
from kindling_api.references import Reference, order, reference_to, uses

Make = Callable[..., Document]


def chain(make: Make) -> list[Document]:
    """A build, a run on it, a reward model and a policy trained against it."""
    ppo = {"ppo": {"rewardModel": {"kind": "AlignmentRun", "name": "judge"}}}
    return [
        make("DatasetBuild", "web"),
        make("PretrainRun", "tiny"),
        make("AlignmentRun", "judge", method={"reward": {}}),
        make("AlignmentRun", "chat", method=ppo),
    ]


def test_any_order_of_writing_gives_an_order_of_running(make: Make) -> None:
    for documents in permutations(chain(make)):
        names = [document.metadata.name for document in order(documents)]
        assert names.index("web") < names.index("tiny") < names.index("judge") < names.index("chat")


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.integers(0, 7), st.integers(0, 7)), max_size=12), st.randoms())
def test_runs_that_start_from_one_another_come_after_what_they_start_from(make: Make, pairs: list, random: Any) -> None:
    start_of = {later: earlier for earlier, later in pairs if earlier < later}
    runs = [
        make("PretrainRun", f"r{n}", dataset={"uri": "d"}, **_initialize(start_of[n]) if n in start_of else {})
        for n in range(8)
    ]
    random.shuffle(runs)
    names = [document.metadata.name for document in order(runs)]
    assert sorted(names) == [f"r{n}" for n in range(8)]
    assert all(names.index(f"r{earlier}") < names.index(f"r{later}") for later, earlier in start_of.items())


def _initialize(number: int) -> dict[str, Any]:
    return {"initialize": {"from": {"kind": "PretrainRun", "name": f"r{number}"}}}


def test_documents_without_references_keep_their_order(make: Make) -> None:
    builds = [make("DatasetBuild", name) for name in ("c", "a", "b")]
    assert order(builds) == builds


def test_every_place_of_a_reference_is_known(make: Make) -> None:
    rewards = [{"exactAnswer": {}}, {"model": {"name": "judge"}}]
    method, evaluation = {"grpo": {"rewards": rewards}}, {"judge": {"uri": "s3://j"}}
    run = make("AlignmentRun", "chat", base={"uri": "s3://m"}, method=method, evaluation=evaluation)
    assert [(use.field, use.role, use.uri) for use in uses(run)] == [
        ("spec.base", "base", "s3://m"),
        ("spec.method.grpo.rewards[1].model", "reward", None),
        ("spec.evaluation.judge", "judge", "s3://j"),
    ]


@pytest.mark.parametrize(
    ("others", "spec", "sentence"),
    [
        pytest.param(
            [("DatasetBuild", "web2")],
            {},
            "PretrainRun/x: spec.dataset.name: found web; allowed: the name of a DatasetBuild that is given, too"
            " (web2). To"
            " fix it: did you mean `web2`?",
            id="a near name",
        ),
        pytest.param(
            [],
            {},
            "PretrainRun/x: spec.dataset.name: found web; allowed: the name of a DatasetBuild that is given, too"
            " (there is"
            " none). To fix it: give its document, or write spec.dataset: {uri: …}.",
            id="nothing near",
        ),
        pytest.param(
            [],
            {"dataset": {"uri": "d"}, "initialize": {"from": {"name": "base"}}},
            "PretrainRun/x: spec.initialize.from.name: found base; allowed: the name of a PretrainRun or"
            " AlignmentRun that is"
            " given, too (there is none). To fix it: give its document, or write spec.initialize.from: {uri: …}.",
            id="a model",
        ),
    ],
)
def test_a_reference_that_leads_nowhere_is_refused(others: list, spec: dict, sentence: str, make: Make) -> None:
    with pytest.raises(SpecError) as refusal:
        order([make("PretrainRun", "x", **spec), *(make(kind, name) for kind, name in others)])
    assert str(refusal.value) == sentence


def test_references_do_not_cross_namespaces(make: Make) -> None:
    with pytest.raises(SpecError, match="there is none"):
        order([make("DatasetBuild", "web", namespace="a"), make("PretrainRun", "x", namespace="b")])


def test_a_product_that_exists_already_needs_no_document(make: Make) -> None:
    run = make("PretrainRun", "x")
    assert order([run], exists=lambda reference: reference == Reference("DatasetBuild", "default", "web")) == [run]


def test_a_name_that_two_documents_have_needs_a_kind(make: Make) -> None:
    documents = [
        make("DatasetBuild", "web"),
        make("PretrainRun", "tiny"),
        make("AlignmentRun", "tiny", base={"kind": "PretrainRun", "name": "tiny"}),
        make("AlignmentRun", "chat"),
    ]
    with pytest.raises(SpecError) as refusal:
        order(documents)
    assert str(refusal.value) == (
        "AlignmentRun/chat: spec.base: found the name tiny, which two documents have; allowed: one document. To fix"
        " it: add"
        " kind: PretrainRun or kind: AlignmentRun."
    )


def test_a_circle_is_refused_and_shown(make: Make) -> None:
    runs = [
        make("AlignmentRun", "a", base={"name": "b"}),
        make("AlignmentRun", "b", base={"name": "c"}),
        make("AlignmentRun", "c", base={"name": "a"}),
    ]
    with pytest.raises(SpecError) as refusal:
        order(runs)
    assert str(refusal.value) == (
        "AlignmentRun/a: found a circle of references: AlignmentRun/a → AlignmentRun/b → AlignmentRun/c →"
        " AlignmentRun/a;"
        " allowed: references that end at a source or a URI. To fix it: remove one of these references."
    )


def test_a_run_that_starts_from_itself_is_a_circle(make: Make) -> None:
    with pytest.raises(SpecError, match="AlignmentRun/a → AlignmentRun/a"):
        order([make("AlignmentRun", "a", base={"name": "a"})])


def test_a_reference_is_written_as_kind_and_name(make: Make) -> None:
    assert str(reference_to(make("DatasetBuild", "web"))) == "DatasetBuild/web"
