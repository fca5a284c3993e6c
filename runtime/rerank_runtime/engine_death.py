"""Why the engine ended, read from its exit and the last lines of its log. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from rerank_runtime.failure import Failure, Reason


@dataclass(frozen=True)
class _Sign:
    """A log line that tells the cause. `{line}` in the message stands for what the engine said."""

    pattern: re.Pattern[str]
    reason: Reason
    message: str
    retriable: bool = False


def _sign(pattern: str, reason: Reason, message: str, *, retriable: bool = False) -> _Sign:
    return _Sign(re.compile(pattern), reason, message, retriable)


# The first that any line matches wins: causes stand before their consequences.
_SIGNS = (
    _sign(
        r"CUDA out of memory|torch\.(cuda\.)?OutOfMemoryError|CUDA error: out of memory"
        r"|No available memory for the cache"
        r"|less than desired GPU memory utilization|CUBLAS_STATUS_ALLOC_FAILED",
        Reason.GPU_OUT_OF_MEMORY,
        "The GPU has too little free memory for this model: {line} "
        "Use a GPU with more memory, or one that is not shared.",
    ),
    _sign(
        r"DefaultCPUAllocator: can't allocate memory|\bMemoryError\b|Cannot allocate memory",
        Reason.ENGINE_OUT_OF_MEMORY,
        "The engine ran out of memory: {line} Raise resources.memory.",
    ),
    _sign(
        r"No CUDA GPUs are available|Found no NVIDIA driver|Failed to infer device type"
        r"|CUDA driver version is insufficient|no NVIDIA GPU detected",
        Reason.ENGINE_FAILED,
        "The engine sees no usable GPU: {line} Check the node's driver and device plugin.",
        retriable=True,
    ),
    _sign(
        r"device-side assert triggered|CUDA error: an illegal memory access",
        Reason.ENGINE_FAILED,
        "A computation on the GPU failed: {line}",
        retriable=True,
    ),
    _sign(
        r"Model architectures .* (are not supported|failed to be inspected)"
        r"|does not recognize this architecture",
        Reason.UNSUPPORTED_ARCHITECTURE,
        "The engine does not know this model: {line}",
    ),
    _sign(
        r"SafetensorError|HeaderTooLarge|InvalidHeader|MetadataIncompleteBuffer",
        Reason.WEIGHTS_TRUNCATED,
        "The engine cannot read the weights: {line}",
    ),
    _sign(
        r"FileNotFoundError|does not appear to have a file named|No such file or directory"
        r"|Can't load tokenizer",
        Reason.FILE_MISSING,
        "The engine misses a file: {line}",
    ),
    _sign(
        r"No space left on device",
        Reason.ENGINE_FAILED,
        "The engine found no space left to write to: {line}",
        retriable=True,
    ),
)

# vLLM's own prefixes: "(EngineCore pid=257) ERROR 11-22 19:21:06 [core.py:1454] ". Lines of lesser levels are
# no causes: a warning at start names errors that may come.
_HARMLESS = re.compile(r"^(\(\w+ pid=\d+\) )?(DEBUG|INFO|WARNING) ")
_PREFIX = re.compile(r"^(\(\w+ pid=\d+\) )?((DEBUG|INFO|WARNING|ERROR|CRITICAL) [\d-]+ [\d:]+ \[[^\]]+\] )?")
# Such lines carry what happened; a bare "RuntimeError: Engine core initialization failed" only says that it
# did.
_ERROR_LINE = re.compile(r"^[\w.]*(Error|Exception|Failed)\b:? *\S")
# And those of the clean-up after it say nothing: the resource tracker's "KeyError: '/psm_1c77a7f2'".
_NOISE = re.compile(r"^KeyError: '/(psm|mp)")
_CONSEQUENCE = re.compile(
    r"Engine core initialization failed|EngineDeadError|WorkerProc initialization failed|See root cause"
)
_LONGEST = 400


def explain(tail: Sequence[str], code: int, *, memory_kills: int = 0) -> Failure:
    """The cause of an engine's end.

    Args:
        tail: The last lines of its log.
        code: Its exit code, negative where a signal ended it.
        memory_kills: How many processes of the container the kernel killed for want of memory meanwhile.
    """
    if memory_kills:
        return Failure(
            Reason.ENGINE_OUT_OF_MEMORY,
            "The kernel killed the engine because the container used all of its memory: "
            "raise resources.memory.",
        )
    told = [line for line in tail if not _HARMLESS.match(line)]
    lines = [line for line in (_PREFIX.sub("", line).strip() for line in told) if not _NOISE.match(line)]
    for sign in _SIGNS:
        for line in lines:
            if sign.pattern.search(line):
                return Failure(
                    sign.reason, sign.message.format(line=_sentence(line)), retriable=sign.retriable
                )
    ended = f"signal {-code}" if code < 0 else f"exit code {code}"
    return Failure(
        Reason.ENGINE_FAILED,
        f"The engine ended with {ended}: {_sentence(_last_error(lines))}",
        retriable=True,
    )


def _last_error(lines: Sequence[str]) -> str:
    errors = [line for line in lines if _ERROR_LINE.search(line)]
    causes = [line for line in errors if not _CONSEQUENCE.search(line)]
    if causes:
        return causes[-1]
    if errors:
        return "one of its processes ended without a word, for example killed from outside"
    return "its log does not say why"


def _sentence(line: str) -> str:
    line = line if len(line) <= _LONGEST else line[:_LONGEST] + "…"
    return line if line.endswith((".", "…", "!")) else line + "."
