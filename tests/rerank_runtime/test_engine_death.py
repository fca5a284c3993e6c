"""Why the engine ended: from what vLLM 0.32.0 wrote where that could be provoked on a CPU, else from the
words in its source.

The files in engine_logs are its last lines; frames of tracebacks and folders of the machine are taken out.
"""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from rerank_runtime.engine_death import explain, hung
from rerank_runtime.failure import Reason

LOGS = Path(__file__).parent / "engine_logs"


@pytest.mark.parametrize(
    ("name", "reason", "retriable", "says"),
    [
        ("unknown-architecture", Reason.UNSUPPORTED_ARCHITECTURE, False, "['FooForSequenceClassification']"),
        ("unknown-model-type", Reason.UNSUPPORTED_ARCHITECTURE, False, "model type `foo`"),
        ("remote-code", Reason.REMOTE_CODE_REQUIRED, False, "policy.remoteCode"),
        ("weights-cut", Reason.WEIGHTS_TRUNCATED, False, "incomplete metadata, file not fully covered"),
        ("weights-other-shape", Reason.UNSUPPORTED_ARCHITECTURE, False, "(torch.Size([64]))"),
        ("weights-fewer-layers", Reason.UNSUPPORTED_ARCHITECTURE, False, "named 'encoder.layer.1'"),
        ("weights-more-layers", Reason.UNSUPPORTED_ARCHITECTURE, False, "not initialized from checkpoint"),
        ("kv-cache-too-small", Reason.KV_CACHE_TOO_SMALL, False, "Set engine.maxModelLen"),
        ("cpu-memory-taken", Reason.ENGINE_OUT_OF_MEMORY, False, "20.71/23.54 GiB"),
        ("no-memory", Reason.ENGINE_OUT_OF_MEMORY, False, "Raise resources.memory"),
        (
            "flag-with-a-wrong-value",
            Reason.INVALID_OPTIONS,
            False,
            "argument --max-num-seqs: invalid int value",
        ),
        ("too-long", Reason.ENGINE_FAILED, True, "max_model_len (5000) is greater"),
        ("middleware", Reason.ENGINE_FAILED, True, "No module named 'nowhere'"),
        ("template-missing", Reason.ENGINE_FAILED, True, "/nonexistent/template.jinja"),
    ],
)
def test_a_start_that_failed(name: str, reason: Reason, retriable: bool, says: str) -> None:
    failure = explain((LOGS / f"{name}.log").read_text().splitlines(), 1)
    assert (failure.reason, failure.retriable) == (reason, retriable)
    assert says in failure.message
    assert len(failure.message) < 900
    assert "input_value" not in failure.message


def test_an_engine_that_dies_of_a_request() -> None:
    """It ends by itself, with exit code 0."""
    failure = explain((LOGS / "head-of-24.log").read_text().splitlines(), 0, serving=True)
    assert (failure.reason, failure.retriable) == (Reason.UNSUPPORTED_ARCHITECTURE, True)
    assert "while it served" in failure.message
    assert "head_dim=24" in failure.message


# A worker killed from outside: the server ends by itself, with exit code 0.
KILLED_WORKER = """\
(APIServer pid=27405) WARNING 11-22 20:03:27 [system_utils.py:255] Found ulimit of 20000 and failed to
automatically \\ increase with error current limit exceeds maximum limit. This can cause fd limit errors like
`OSError: [Errno 24]` (APIServer pid=27405) ERROR 11-22 20:05:22 [async_llm.py:906] AsyncLLM output_handler
failed. (APIServer pid=27405) ERROR 11-22 20:05:22 [async_llm.py:906] Traceback (most recent call last):
(APIServer pid=27405) ERROR 11-22 20:05:22 [async_llm.py:906] vllm.v1.engine.exceptions.EngineDeadError:
EngineCore \\ encountered an issue. See stack trace (above) for the root cause.
/usr/lib/python3.11/multiprocessing/resource_tracker.py:123: UserWarning: resource_tracker: process died
unexpectedly
KeyError: '/psm_1c77a7f2'
KeyError: '/mp-r0d7ykfn'
"""
# The same while it starts.
KILLED_AT_START = """\
    raise RuntimeError(
RuntimeError: Engine core initialization failed. See root cause above. Failed core proc(s): {}
"""
# From here on no GPU was at hand: torch's and vLLM's words, as their source and reports of others have them.
GPU_FULL = """\
(EngineCore pid=88) ERROR 11-22 19:21:06 [core.py:1100] torch.OutOfMemoryError: CUDA out of memory. \
Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 14.56 GiB of which 1.1 GiB is free.
RuntimeError: Engine core initialization failed. See root cause above. Failed core proc(s): {}
"""
GPU_SHARED = (
    "ValueError: Free memory on device cuda:0 (3.1/79.1 GiB) on startup is less than desired GPU memory "
    "utilization (0.92, 72.8 GiB). Decrease GPU memory utilization or reduce GPU memory used by others."
)
NO_CACHE = "ValueError: No available memory for the cache blocks. Try increasing `gpu_memory_utilization`"
OLD_GPU = (
    "ValueError: Bfloat16 is only supported on GPUs with compute capability of at least 8.0. Your Tesla T4 "
    "GPU has compute capability 7.5."
)
NO_GPU = "RuntimeError: No CUDA GPUs are available"
ASSERT = "(Worker pid=3) ERROR 11-22 19:21:06 [x.py:1] RuntimeError: CUDA error: device-side assert triggered"
NO_TOKENIZER = "OSError: Can't load tokenizer for '/models/model'. Make sure it is the correct path."
NO_MEMORY = "RuntimeError: [enforce fail at alloc_cpu.cpp:118] DefaultCPUAllocator: can't allocate memory"
NO_DISK = "OSError: [Errno 28] No space left on device: '/tmp/torchinductor'"
NO_PORT = "OSError: [Errno 98] Address already in use"


@pytest.mark.parametrize(
    ("log", "code", "reason", "says", "retriable"),
    [
        (KILLED_WORKER, 0, Reason.ENGINE_FAILED, "code 0: one of its processes ended without a word", True),
        (KILLED_AT_START, 1, Reason.ENGINE_FAILED, "one of its processes ended without a word", True),
        (GPU_FULL, 1, Reason.GPU_OUT_OF_MEMORY, "Tried to allocate 2.00 GiB", False),
        (GPU_SHARED, 1, Reason.GPU_OUT_OF_MEMORY, "3.1/79.1 GiB", True),
        (NO_CACHE, 1, Reason.KV_CACHE_TOO_SMALL, "engine.maxModelLen", False),
        (OLD_GPU, 1, Reason.GPU_UNUSABLE, "engine.dtype: float16", False),
        (NO_GPU, 1, Reason.GPU_UNUSABLE, "sees no usable GPU", True),
        (ASSERT, 1, Reason.GPU_FAULT, "computation on the GPU failed", True),
        (NO_TOKENIZER, 1, Reason.TOKENIZER_INVALID, "Can't load tokenizer", False),
        (NO_MEMORY, 1, Reason.ENGINE_OUT_OF_MEMORY, "Raise resources.memory", False),
        (NO_DISK, 1, Reason.DISK_FULL, "/dev/shm", True),
        (NO_PORT, 1, Reason.ENGINE_FAILED, "port is taken", True),
        ("", -9, Reason.ENGINE_FAILED, "signal 9: its log does not say why", True),
        ("", -signal.SIGILL, Reason.ENGINE_FAILED, "choose another node", True),
        ("", -signal.SIGBUS, Reason.ENGINE_FAILED, "/dev/shm", True),
    ],
)
def test_the_cause_is_found(log: str, code: int, reason: Reason, says: str, retriable: bool) -> None:
    failure = explain(log.splitlines(), code)
    assert (failure.reason, failure.retriable) == (reason, retriable)
    assert says in failure.message


def test_memory_that_runs_out_later_may_do_next_time() -> None:
    failure = explain(GPU_FULL.splitlines(), 1, serving=True)
    assert (failure.reason, failure.retriable) == (Reason.GPU_OUT_OF_MEMORY, True)
    assert "while it served" in failure.message


def test_a_kill_for_memory_explains_everything_else() -> None:
    failure = explain(KILLED_WORKER.splitlines(), 0, memory_kills=1)
    assert failure.reason == Reason.ENGINE_OUT_OF_MEMORY
    assert "raise resources.memory" in failure.message


def test_long_lines_are_cut() -> None:
    assert len(explain([f"ValueError: {'x' * 5000}"], 1).message) < 500


def test_warnings_are_no_cause() -> None:
    warning = (
        "(APIServer pid=1) WARNING 11-22 20:03:27 [x.py:1] may raise CUDA out of memory on small devices"
    )
    assert explain([warning, "ValueError: what it was"], 1).message.endswith(
        "exit code 1: ValueError: what it was."
    )


def test_an_engine_that_hangs_is_quoted() -> None:
    tail = ["(Worker pid=9) INFO 11-22 19:21:06 [x.py:1] loading weights", ""]
    failure = hung(tail, 605.0)
    assert (failure.reason, failure.retriable) == (Reason.ENGINE_HUNG, True)
    assert "for 10 minutes" in failure.message
    assert "Its last words were: loading weights." in failure.message
    assert "It has not said a word" in hung([], 605.0).message
