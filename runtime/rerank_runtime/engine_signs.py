"""Lines of vLLM's log that tell a cause, as data. Used by engine_death.

vLLM 0.32.0's own words (named after the pattern where it is not a library's): wherever they could be provoked
on a CPU, the tests hold the line as it was written.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from rerank_runtime.failure import Reason


@dataclass(frozen=True)
class Sign:
    """A log line that tells the cause.

    Args:
        pattern: What the line holds.
        reason: The cause.
        what: What happened, in words; the line itself follows.
        hint: What to do about it.
        retriable: Whether the same may succeed later without anybody's doing.
    """

    pattern: re.Pattern[str]
    reason: Reason
    what: str
    hint: str = ""
    retriable: bool = False


def _sign(pattern: str, reason: Reason, what: str, hint: str = "", *, retriable: bool = False) -> Sign:
    return Sign(re.compile(pattern), reason, what, hint, retriable)


# The first that any line matches wins: causes stand before their consequences.
SIGNS = (
    _sign(
        # argparse's; all other flags are the runtime's own.
        r"^vllm serve: error: ",
        Reason.INVALID_OPTIONS,
        "vLLM does not take a flag of engine.extraArgs",
        "Correct engine.extraArgs.",
    ),
    _sign(
        # v1/core/kv_cache_utils.py: _check_enough_kv_cache_memory
        r"KV cache is needed, which is larger than the available KV cache"
        r"|No available memory for the cache blocks",
        Reason.KV_CACHE_TOO_SMALL,
        "The memory that is left beside the weights does not hold one text of the full length",
        "Set engine.maxModelLen to a shorter length, or use a device with more memory.",
    ),
    _sign(
        r"CUDA out of memory|torch\.(cuda\.)?OutOfMemoryError|CUDA error: out of memory"
        r"|CUBLAS_STATUS_ALLOC_FAILED|HIP out of memory",
        Reason.GPU_OUT_OF_MEMORY,
        "The GPU has too little memory for this model",
        "Use a GPU with more memory, set engine.maxModelLen to a shorter length, or lower "
        "engine.gpuMemoryUtilization where others use the GPU too.",
    ),
    _sign(
        # v1/worker/utils.py: request_memory
        r"less than desired GPU memory utilization",
        Reason.GPU_OUT_OF_MEMORY,
        "Somebody else uses the GPU's memory",
        "Use a GPU that is not shared, or lower engine.gpuMemoryUtilization.",
        retriable=True,
    ),
    _sign(
        # v1/worker/cpu_worker.py tells of the node's memory, too.
        r"DefaultCPUAllocator: can't allocate memory|\bMemoryError\b|Cannot allocate memory"
        r"|less than desired CPU memory utilization|less than requested memory for kv",
        Reason.ENGINE_OUT_OF_MEMORY,
        "The engine ran out of memory",
        "Raise resources.memory.",
    ),
    _sign(
        r"No CUDA GPUs are available|Found no NVIDIA driver|Failed to infer device type"
        r"|CUDA driver version is insufficient|no NVIDIA GPU detected|no CUDA-capable device is detected",
        Reason.GPU_UNUSABLE,
        "The engine sees no usable GPU",
        "Check the node's driver and device plugin.",
        retriable=True,
    ),
    _sign(
        # platforms/cuda.py: check_if_supports_dtype
        r"only supported on GPUs with compute capability|no kernel image is available for execution",
        Reason.GPU_UNUSABLE,
        "The GPU is too old for the way the model runs",
        "Set engine.dtype: float16, or choose a newer GPU by scheduling.nodeSelector.",
    ),
    _sign(
        r"device-side assert triggered|an illegal memory access|unspecified launch failure"
        r"|uncorrectable ECC error|CUBLAS_STATUS_EXECUTION_FAILED|CUDNN_STATUS_EXECUTION_FAILED"
        r"|CUDA error: misaligned address|GPU is lost",
        Reason.GPU_FAULT,
        "A computation on the GPU failed",
        "If it comes back, lower engine.maxModelLen, or look for errors of the GPU in the node's kernel log.",
        retriable=True,
    ),
    _sign(
        # transformers_utils/config.py and tokenizers/hf.py, and transformers' own words
        r"requires you to execute the (configuration|tokenizer|modeling) file"
        r"|consider setting `trust_remote_code=True`|contains custom code which must be executed"
        r"|trust_remote_code=True` in LLM",
        Reason.REMOTE_CODE_REQUIRED,
        "The model needs Python code of its own repository",
        "It is run only with engine.trustRemoteCode: true, and where the chart's policy.remoteCode allows "
        "this repository and revision.",
    ),
    _sign(
        # model_executor/models/registry.py: _raise_for_unsupported
        r"Model architectures? .* (are not supported|failed to be inspected|was supported in vLLM until"
        r"|is not supported in-tree)|does not recognize this architecture",
        Reason.UNSUPPORTED_ARCHITECTURE,
        "The engine does not know this model",
    ),
    _sign(
        # csrc/cpu: the first request ends the engine
        r"Unsupported CPU attention configuration",
        Reason.UNSUPPORTED_ARCHITECTURE,
        "The engine cannot compute this model on a processor",
        "Set resources.gpu.count: 1.",
    ),
    _sign(
        r"SafetensorError|HeaderTooLarge|InvalidHeader|MetadataIncompleteBuffer",
        Reason.WEIGHTS_TRUNCATED,
        "The engine cannot read the weights",
        "Fetch the model again: delete the files, or the pod where they lie in it.",
    ),
    _sign(
        # model_executor/models/utils.py, AutoWeightsLoader; model_loader/default_loader.py
        r"There is no module or parameter named|weights were not initialized from checkpoint"
        r"|Attempted to load weight",
        Reason.UNSUPPORTED_ARCHITECTURE,
        "The weights are not those of the architecture that config.json names",
    ),
    _sign(
        r"Can't load tokenizer|Failed to load the tokenizer|untagged enum (ModelWrapper|PreTokenizer)"
        r"|Couldn't instantiate the backend tokenizer|Tokenizer class .* does not exist",
        Reason.TOKENIZER_INVALID,
        "The engine cannot load the tokenizer",
        "Save the tokenizer again in its fast form, with the library's present version.",
    ),
    _sign(
        r"No space left on device|Disk quota exceeded",
        Reason.DISK_FULL,
        "The engine found no space left to write to",
        "It writes to /tmp and /dev/shm: free the node's disk, or raise resources.memory.",
        retriable=True,
    ),
    _sign(
        r"Address already in use|\[Errno 98\]",
        Reason.ENGINE_FAILED,
        "The engine's port is taken",
        retriable=True,
    ),
    _sign(
        r"FileNotFoundError|does not appear to have a file named|No such file or directory",
        Reason.FILE_MISSING,
        "The engine misses a file",
    ),
)
