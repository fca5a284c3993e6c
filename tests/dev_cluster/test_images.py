"""Keys and tags: they change with what an image is made from, and with nothing else."""

from pathlib import Path

import pytest

from dev.cluster.dockerfile import Inputs
from dev.cluster.errors import ClusterError
from dev.cluster.images import PRODUCTS, content_key, context_files, product, tag

MADE_FROM = Inputs(("FROM base", "COPY api /api"), ("api",))


@pytest.fixture
def context(tmp_path: Path) -> Path:
    (tmp_path / "api" / "__pycache__").mkdir(parents=True)
    (tmp_path / "api" / "module.py").write_text("x = 1\n")
    (tmp_path / "api" / "__pycache__" / "module.cpython-311.pyc").write_bytes(b"1")
    (tmp_path / "api" / ".mypy_cache").mkdir()
    (tmp_path / "api" / ".mypy_cache" / "x.json").write_text("{}")
    (tmp_path / "pyproject.toml").write_text('[project]\nversion = "1.2.3"\n')
    (tmp_path / "unrelated.txt").write_text("1")
    return tmp_path


def test_what_running_the_code_leaves_is_not_part_of_an_image(context: Path) -> None:
    assert context_files(context, ["api"]) == [context / "api" / "module.py"]


def test_the_key_is_the_same_for_the_same_content_whatever_lies_beside_it(context: Path) -> None:
    key = content_key(context, MADE_FROM, "base-1")
    (context / "unrelated.txt").write_text("2")
    (context / "api" / "__pycache__" / "module.cpython-311.pyc").write_bytes(b"2")
    assert content_key(context, MADE_FROM, "base-1") == key


def test_the_key_changes_with_content_name_mode_instructions_and_base(context: Path) -> None:
    module = context / "api" / "module.py"
    keys = [content_key(context, MADE_FROM, "base-1"), content_key(context, MADE_FROM, "base-2")]
    keys.append(content_key(context, Inputs(("FROM base", "COPY api /other"), ("api",)), "base-1"))
    module.chmod(0o755)
    keys.append(content_key(context, MADE_FROM, "base-1"))
    module.write_text("x = 2\n")
    keys.append(content_key(context, MADE_FROM, "base-1"))
    module.rename(context / "api" / "renamed.py")
    keys.append(content_key(context, MADE_FROM, "base-1"))
    assert len(set(keys)) == 6


def test_a_source_that_does_not_exist_is_named(context: Path) -> None:
    with pytest.raises(ClusterError, match=r"missing\.txt"):
        context_files(context, ["missing.txt"])


def test_the_tag_has_the_version_and_changes_with_any_image(context: Path) -> None:
    first = tag(context, {"operator": "a", "gateway": "b"})
    assert first.startswith("1.2.3-")
    assert first != tag(context, {"operator": "a", "gateway": "c"})
    assert first == tag(context, {"gateway": "b", "operator": "a"})


def test_references_are_what_the_chart_asks_for() -> None:
    assert product("operator").reference("1-a") == "rerank-operator:1-a"
    assert product("runtime-cpu").reference("1-a") == "rerank-runtime:1-a-cpu"


def test_an_unknown_target_is_named_with_the_known_ones() -> None:
    with pytest.raises(ClusterError, match=PRODUCTS[0].target):
        product("nope")
