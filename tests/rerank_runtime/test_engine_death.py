"""Why the engine ended, from real excerpts of vLLM 0.32.0's log where they could be made on a CPU."""

from __future__ import annotations

import pytest

from rerank_runtime.engine_death import explain
from rerank_runtime.failure import Reason

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
TOO_LONG = """\
  File "/opt/rerank/lib/python3.11/site-packages/pydantic/_internal/_dataclasses.py", line 121, in __init__
    s.__pydantic_validator__.validate_python(ArgsKwargs(args, kwargs), self_instance=s)
pydantic_core._pydantic_core.ValidationError: 1 validation error for ModelConfig
  Value error, User-specified max_model_len (512) is greater than the derived max_model_len (256).
    For further information visit https://errors.pydantic.dev/2.14/v/value_error
"""
GPU_FULL = """\
(EngineCore pid=88) ERROR 11-22 19:21:06 [core.py:1100] torch.OutOfMemoryError: CUDA out of memory. \
Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 14.56 GiB of which 1.1 GiB is free.
RuntimeError: Engine core initialization failed. See root cause above. Failed core proc(s): {}
"""
GPU_SHARED = (
    "ValueError: Free memory on device cuda:0 (3.1/79.1 GiB) is less than desired GPU memory utilization"
)
NO_GPU = "RuntimeError: No CUDA GPUs are available"
ASSERT = "(Worker pid=3) ERROR 11-22 19:21:06 [x.py:1] RuntimeError: CUDA error: device-side assert triggered"
DAMAGED = "safetensors_rust.SafetensorError: Error while deserializing header: incomplete metadata"
UNKNOWN = "ValueError: Model architectures ['FooModel'] are not supported for now."
NO_TOKENIZER = "OSError: Can't load tokenizer for '/models/model'. Make sure it is the correct path."
NO_MEMORY = "RuntimeError: [enforce fail at alloc_cpu.cpp:118] DefaultCPUAllocator: can't allocate memory"


@pytest.mark.parametrize(
    ("log", "code", "reason", "says", "retriable"),
    [
        (
            KILLED_WORKER,
            0,
            Reason.ENGINE_FAILED,
            "exit code 0: one of its processes ended without a word",
            True,
        ),
        (KILLED_AT_START, 1, Reason.ENGINE_FAILED, "one of its processes ended without a word", True),
        (TOO_LONG, 1, Reason.ENGINE_FAILED, "ValidationError: 1 validation error for ModelConfig", True),
        (GPU_FULL, 1, Reason.GPU_OUT_OF_MEMORY, "Tried to allocate 2.00 GiB", False),
        (GPU_SHARED, 1, Reason.GPU_OUT_OF_MEMORY, "3.1/79.1 GiB", False),
        (NO_GPU, 1, Reason.ENGINE_FAILED, "sees no usable GPU", True),
        (ASSERT, 1, Reason.ENGINE_FAILED, "computation on the GPU failed", True),
        (DAMAGED, 1, Reason.WEIGHTS_TRUNCATED, "incomplete metadata", False),
        (UNKNOWN, 1, Reason.UNSUPPORTED_ARCHITECTURE, "FooModel", False),
        (NO_TOKENIZER, 1, Reason.FILE_MISSING, "Can't load tokenizer", False),
        (NO_MEMORY, 1, Reason.ENGINE_OUT_OF_MEMORY, "Raise resources.memory", False),
        ("", -9, Reason.ENGINE_FAILED, "signal 9: its log does not say why", True),
    ],
)
def test_the_cause_is_found(log: str, code: int, reason: Reason, says: str, retriable: bool) -> None:
    failure = explain(log.splitlines(), code)
    assert (failure.reason, failure.retriable) == (reason, retriable)
    assert says in failure.message


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
