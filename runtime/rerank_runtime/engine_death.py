"""Why the engine ended or hangs, read from its exit and the last lines of its log. Pure."""

from __future__ import annotations

import re
import signal
from collections.abc import Sequence

from rerank_runtime.engine_signs import SIGNS
from rerank_runtime.failure import Failure, Reason

# vLLM's own prefixes: "(EngineCore pid=257) ERROR 11-22 19:21:06 [core.py:1454] ". Lines of lesser levels are
# no causes: a warning at start names errors that may come.
_HARMLESS = re.compile(r"^(\([\w-]+ pid=\d+\) )?(DEBUG|INFO|WARNING) ")
_PREFIX = re.compile(
    r"^(\([\w-]+ pid=\d+\) )?((DEBUG|INFO|WARNING|ERROR|CRITICAL) [\d-]+ [\d:]+ \[[^\]]+\] )?"
)
# Such lines carry what happened; a bare "RuntimeError: Engine core initialization failed" only says that it
# did.
_ERROR_LINE = re.compile(r"^[\w.]*(Error|Exception|Failed)\b:? *\S")
# And those of the clean-up after it say nothing: the resource tracker's "KeyError: '/psm_1c77a7f2'".
_NOISE = re.compile(r"^KeyError: '/(psm|mp)")
_CONSEQUENCE = re.compile(
    r"Engine core initialization failed|EngineDeadError|WorkerProc initialization failed|See root cause"
)
# pydantic names the model that refused first, and what was wrong in the next line, indented.
_REFUSED = re.compile(r"^pydantic_core\S*ValidationError: \d+ validation errors? for")
_SIGNALS = {
    signal.SIGILL: "the processor lacks instructions that the engine was built for; choose another node",
    signal.SIGBUS: "a file in shared memory or of the weights could not be read; look for a full /dev/shm "
    "or a volume that went away",
    signal.SIGSEGV: "it crashed in native code",
}
# Lists of everything that would have been possible, and the arguments of a call.
_TEDIOUS = re.compile(
    r" (Supported architectures: dict_keys|\[type=\w+, input_value=|The available parameters bel).*"
)
_LONGEST = 400


def explain(tail: Sequence[str], code: int, *, memory_kills: int = 0, serving: bool = False) -> Failure:
    """The cause of an engine's end.

    Args:
        tail: The last lines of its log.
        code: Its exit code, negative where a signal ended it.
        memory_kills: How many processes of the container the kernel killed for want of memory meanwhile.
        serving: Whether it had started before.
    """
    if memory_kills:
        return Failure(
            Reason.ENGINE_OUT_OF_MEMORY,
            "The kernel killed the engine because the container used all of its memory: "
            "raise resources.memory.",
        )
    lines = _telling(tail)
    for sign in SIGNS:
        for line in lines:
            if sign.pattern.search(line):
                when = " while it served" if serving else ""
                message = f"{sign.what}{when}: {_sentence(line)} {sign.hint}"
                return Failure(sign.reason, message.rstrip(), retriable=sign.retriable or serving)
    return Failure(
        Reason.ENGINE_FAILED, f"The engine ended with {_ended(code)}{_why(code, lines)}", retriable=True
    )


def hung(tail: Sequence[str], idle: float) -> Failure:
    """An engine that has done nothing for `idle` seconds before it ever answered."""
    lines = [_PREFIX.sub("", line).strip() for line in tail]
    last = next((line for line in reversed(lines) if line), "")
    said = f"Its last words were: {_sentence(last)}" if last else "It has not said a word."
    return Failure(
        Reason.ENGINE_HUNG,
        f"The engine hangs while it starts: for {idle / 60:.0f} minutes it neither used the processor nor "
        f"wrote to its log. {said} It is started again; look at the volume that it loads from, and at "
        "the GPU.",
        retriable=True,
    )


def _telling(tail: Sequence[str]) -> list[str]:
    told = [_PREFIX.sub("", line).strip() for line in tail if not _HARMLESS.match(line)]
    told = [line for line in told if not _NOISE.match(line)]
    return [
        f"ValueError: {told[i + 1].removeprefix('Value error, ')}"
        if _REFUSED.match(line) and i + 1 < len(told)
        else line
        for i, line in enumerate(told)
    ]


def _ended(code: int) -> str:
    return f"signal {-code}" if code < 0 else f"exit code {code}"


def _why(code: int, lines: Sequence[str]) -> str:
    if code < 0 and -code in _SIGNALS:
        return f": {_sentence(_SIGNALS[signal.Signals(-code)])}"
    return f": {_sentence(_last_error(lines))}"


def _last_error(lines: Sequence[str]) -> str:
    errors = [line for line in lines if _ERROR_LINE.search(line)]
    causes = [line for line in errors if not _CONSEQUENCE.search(line)]
    if causes:
        return causes[-1]
    if errors:
        return "one of its processes ended without a word, for example killed from outside"
    return "its log does not say why"


def _sentence(line: str) -> str:
    line = _TEDIOUS.sub("", line)
    line = line if len(line) <= _LONGEST else line[:_LONGEST] + "…"
    return line if line.endswith((".", "…", "!")) else line + "."
