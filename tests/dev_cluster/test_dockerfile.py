"""What a target is made from, read from Dockerfiles like ours."""

import pytest

from dev.cluster.dockerfile import inputs, instructions, mounted_stages, with_mounted_images
from dev.cluster.errors import ClusterError

DOCKERFILE = """
# comment
ARG BASE_IMAGE=python:3.12-slim
FROM ${BASE_IMAGE} AS base
RUN useradd rerank \\
    # a comment inside
    && mkdir /x

FROM base AS tools
COPY requirements/build.txt /requirements/
RUN make-tools

FROM tools as wheel
COPY --chown=1:1 pyproject.toml README.md /src/
COPY api /src/api

FROM base AS operator
COPY requirements/operator.txt /build/
RUN --mount=type=bind,from=tools,source=/opt/tools,target=/opt/tools \\
    --mount=from=wheel,target=/wheel uv install --from=tools
COPY --from=wheel /src/api /copied

FROM base
COPY other /other
"""


def test_continued_lines_are_joined_and_comments_dropped() -> None:
    assert instructions("# a\nRUN a \\\n  # b\n  && c\n\nUSER 1\n") == ["RUN a  && c", "USER 1"]


def test_a_target_is_made_from_its_own_and_its_parents_sources() -> None:
    assert inputs(DOCKERFILE, "wheel").sources == (
        "README.md",
        "api",
        "pyproject.toml",
        "requirements/build.txt",
    )


def test_mounted_and_copied_stages_count_as_parents() -> None:
    assert inputs(DOCKERFILE, "operator").sources == (
        "README.md",
        "api",
        "pyproject.toml",
        "requirements/build.txt",
        "requirements/operator.txt",
    )


def test_another_stages_instructions_do_not_count() -> None:
    assert not any("other" in line for line in inputs(DOCKERFILE, "operator").instructions)
    assert inputs(DOCKERFILE, "4").sources == ("other",)


def test_global_arguments_count_for_every_target() -> None:
    changed = DOCKERFILE.replace("python:3.12-slim", "python:3.13-slim")
    assert inputs(DOCKERFILE, "wheel").instructions != inputs(changed, "wheel").instructions


def test_mounted_stages_are_named_once_each() -> None:
    assert mounted_stages(DOCKERFILE, "operator") == ("tools", "wheel")
    assert mounted_stages(DOCKERFILE, "wheel") == ()


def test_images_take_the_place_of_mounted_stages_and_of_nothing_else() -> None:
    text = with_mounted_images(DOCKERFILE, {"tools": "localhost/t:1", "wheel": "localhost/w:2"})
    assert (
        "RUN --mount=type=bind,from=localhost/t:1,source=/opt/tools,target=/opt/tools  "
        "--mount=from=localhost/w:2,target=/wheel uv install --from=tools\n"
    ) in text
    assert "COPY --from=wheel /src/api /copied\n" in text


def test_the_rewritten_file_still_parses_to_the_same_sources() -> None:
    text = with_mounted_images(DOCKERFILE, {"tools": "localhost/t:1", "wheel": "localhost/w:2"})
    assert inputs(text, "wheel").sources == inputs(DOCKERFILE, "wheel").sources


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("COPY src/*.py /x", "pattern"),
        ('COPY ["a", "b"]', "form"),
        ("COPY <<EOF /x", "form"),
        ("RUN <<EOF", "here-document"),
        ("COPY $DIR /x", "pattern"),
    ],
)
def test_what_cannot_be_followed_is_refused(line: str, message: str) -> None:
    with pytest.raises(ClusterError, match=message):
        inputs(f"FROM scratch AS one\n{line}\n", "one")


def test_an_unknown_target_is_named_with_the_known_ones() -> None:
    with pytest.raises(ClusterError, match="no target nope; it has base, tools"):
        inputs(DOCKERFILE, "nope")
