"""Reading a Dockerfile just as far as needed to know what files an image is made from. Pure."""

import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass

from dev.cluster.errors import ClusterError


@dataclass(frozen=True)
class Stage:
    """One `FROM … AS name` with what follows it."""

    name: str
    parents: tuple[str, ...]
    """Stages or images that it starts from or copies from."""
    sources: tuple[str, ...]
    """Paths that it copies from the build context."""
    lines: tuple[str, ...]


@dataclass(frozen=True)
class Inputs:
    """What one target is made from: instructions, and paths in the build context."""

    instructions: tuple[str, ...]
    sources: tuple[str, ...]


def instructions(text: str) -> list[str]:
    """Return the instructions, comments dropped and continued lines joined."""
    joined: list[str] = []
    open_line = ""
    for raw in text.splitlines():
        line = raw.strip()
        if not line or line.startswith("#"):
            continue
        if line.endswith("\\"):
            open_line += line[:-1] + " "
            continue
        joined.append(open_line + line)
        open_line = ""
    if open_line:
        joined.append(open_line.strip())
    return joined


def inputs(text: str, target: str) -> Inputs:
    """Return what a target is made from, its parent stages included.

    Args:
        text: the Dockerfile.
        target: name of a stage.

    Raises:
        ClusterError: there is no such stage, or the Dockerfile uses what we cannot follow.
    """
    globals_, stages = parse(text)
    if target not in stages:
        raise ClusterError(f"the Dockerfile has no target {target}; it has {', '.join(stages)}")
    lines: list[str] = list(globals_)
    sources: list[str] = []
    pending, seen = [target], set()
    while pending:
        name = pending.pop()
        if name in seen or name not in stages:
            continue
        seen.add(name)
        stage = stages[name]
        lines += stage.lines
        sources += stage.sources
        pending += stage.parents
    return Inputs(tuple(lines), tuple(sorted(set(sources))))


def mounted_stages(text: str, target: str) -> tuple[str, ...]:
    """Return the stages whose files a target's instructions mount while they run."""
    _, stages = parse(text)
    lines = inputs(text, target).instructions
    mounted = (name for line in lines for name in _mounts(line))
    return tuple(dict.fromkeys(name for name in mounted if name in stages))


def with_mounted_images(text: str, image_of: Mapping[str, str]) -> str:
    """Return the Dockerfile with images in the place of the stages that RUN instructions mount.

    buildah 1.28 gets `RUN --mount=from=STAGE` wrong twice: it reuses the layer when the stage has
    changed, and it mounts nothing when the stage came from its cache. An image whose name carries
    the key of its content has neither trouble.

    Args:
        text: the Dockerfile.
        image_of: the image of each mounted stage.
    """
    before, stages = parse(text)
    lines = list(before)
    for stage in stages.values():
        for instruction in stage.lines:
            line = instruction
            for name in _mounts(instruction):
                if name in image_of:
                    line = re.sub(
                        rf"(--mount=\S*\bfrom=){re.escape(name)}(?=[,\s])", rf"\g<1>{image_of[name]}", line
                    )
            lines.append(line)
    return "\n".join(lines) + "\n"


def parse(text: str) -> tuple[list[str], dict[str, Stage]]:
    """Return the instructions before the first stage, and the stages by name."""
    before: list[str] = []
    blocks: list[list[str]] = []
    for line in instructions(text):
        if line.split()[0].upper() == "FROM":
            blocks.append([line])
        elif blocks:
            blocks[-1].append(line)
        else:
            before.append(line)
    stages = (_stage(block, number) for number, block in enumerate(blocks))
    return before, {stage.name: stage for stage in stages}


def _stage(block: list[str], number: int) -> Stage:
    words = [word for word in block[0].split()[1:] if not word.startswith("--")]
    name = words[2] if len(words) == 3 and words[1].upper() == "AS" else str(number)
    parents, sources = [words[0]], []
    for line in block[1:]:
        keyword, _, rest = line.partition(" ")
        if keyword.upper() in {"COPY", "ADD"}:
            came_from, paths = _copied(rest)
            if came_from is None:
                sources += paths
            else:
                parents.append(came_from)
        parents += _mounts(line)
    return Stage(name, tuple(parents), tuple(sources), tuple(block))


def _copied(rest: str) -> tuple[str | None, list[str]]:
    """Return the stage that a COPY copies from, or None for the context, and its sources."""
    if rest.lstrip().startswith(("[", "<<")):
        raise ClusterError(f"COPY in a form that cannot be followed: {rest}")
    words = shlex.split(rest)
    came_from = next((word.removeprefix("--from=") for word in words if word.startswith("--from=")), None)
    paths = [word for word in words if not word.startswith("--")][:-1]
    for path in paths:
        if came_from is None and set(path) & set("*?[$"):
            raise ClusterError(f"COPY of a pattern cannot be followed: {path}")
    return came_from, paths


def _mounts(line: str) -> list[str]:
    """Return the stages or images that an instruction mounts with `RUN --mount=…,from=NAME`."""
    keyword, _, rest = line.partition(" ")
    if keyword.upper() != "RUN":
        return []
    if "<<" in rest:
        raise ClusterError(f"a here-document cannot be followed: {rest}")
    found: list[str] = []
    for word in rest.split():
        if not word.startswith("--"):
            break  # the command begins
        parts = word.removeprefix("--mount=").split(",")
        found += [part.removeprefix("from=") for part in parts if part.startswith("from=")]
    return found
