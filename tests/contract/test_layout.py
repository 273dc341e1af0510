"""The shape of the tree: what Python's import system and the wheel rely on."""

import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]
TEST_CLUSTER = Path("tests/cluster/kubenode")
"""The one package that only tests use."""
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def test_the_operator_folder_never_shadows_pythons_operator_module() -> None:
    assert not (ROOT / "operator" / "__init__.py").exists()


def test_tests_are_no_package() -> None:
    assert [str(path.parent) for path in (ROOT / "tests").rglob("__init__.py")] == [str(ROOT / TEST_CLUSTER)]


def test_every_package_of_the_wheel_exists_and_states_its_purpose() -> None:
    for package in PROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]:
        text = (ROOT / package / "__init__.py").read_text(encoding="utf-8")
        assert text.startswith('"""'), f"{package} has no docstring"


def test_every_package_is_in_the_wheel_and_under_the_same_checks() -> None:
    packages = {str(path.parent.relative_to(ROOT)) for path in ROOT.glob("*/kindling_*/__init__.py")}
    tools = PROJECT["tool"]
    names = {Path(package).name for package in packages}
    assert set(tools["hatch"]["build"]["targets"]["wheel"]["packages"]) == packages
    assert set(tools["mypy"]["packages"]) == names | {TEST_CLUSTER.name}
    assert set(tools["importlinter"]["root_packages"]) == names
    assert set(tools["ruff"]["src"]) == {str(Path(package).parent) for package in {*packages, str(TEST_CLUSTER)}}


def test_no_source_file_is_longer_than_a_reader_can_hold() -> None:
    files = [path for package in ROOT.glob("*/kindling_*") for path in package.rglob("*.py")]
    assert {str(path.relative_to(ROOT)): n for path in files if (n := len(path.read_text().splitlines())) > 400} == {}


def test_every_module_says_why_it_exists() -> None:
    files = [path for package in ROOT.glob("*/kindling_*") for path in package.rglob("*.py")]
    assert [str(path.relative_to(ROOT)) for path in files if not path.read_text().startswith(('"""', 'r"""'))] == []
