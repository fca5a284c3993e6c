"""How a model is served: a pure decision from what its files say and from what is asked for.

A family's module decides about the model (`families`), this module about what depends on the hardware:
precision, length, memory. A model that no family knows is refused with its reason, because a model served
with a wrong configuration answers 200 with plausible scores.
"""

from __future__ import annotations

import math
from dataclasses import replace

from rerank_runtime import chat_template, families, memory, split
from rerank_runtime.failure import Failure, Reason
from rerank_runtime.families.profile import Profile
from rerank_runtime.memory import GIB, Need
from rerank_runtime.model_files import ModelFiles
from rerank_runtime.options import Device, OnOverflow, Options
from rerank_runtime.serve_plan import ServePlan, Truncation

# vLLM's attention on CPU takes heads in multiples of this; with others it starts, and the first request kills
# it.
_CPU_HEAD_MULTIPLE = 32
# A causal model reads at most this much on a CPU unless more is asked for: longer texts take minutes there.
_CPU_LENGTH = 8192
# A context is not made shorter than this to make a model fit: shorter ones would cut ordinary documents.
_SHORTEST = 2048
# vLLM's --gpu-memory-utilization by default.
_UTILIZATION = 0.92
# Compute capability from which GPUs have bfloat16 (vLLM's platforms/cuda.py: check_if_supports_dtype).
_BFLOAT16 = (8, 0)


def plan(files: ModelFiles, options: Options) -> ServePlan:
    """Decide how to serve a model.

    Raises:
        Failure: `NotAReranker` where it gives no usable score, or none of the method asked for;
            `UnsupportedArchitecture`, `RemoteCodeRequired`, `FileMissing`, `EngineOutOfMemory` and
            `GpuOutOfMemory` where it cannot be served here; `InvalidOptions` where it cannot be so.
    """
    _check_options(options)
    architecture, profile = families.profile(files, options)
    if not files.has_tokenizer:
        raise Failure(
            Reason.FILE_MISSING,
            "There is no tokenizer.json. Prompts are checked against it before a model becomes ready: "
            "save the tokenizer in its fast form beside the model.",
        )
    if options.instruction and not profile.takes_instruction:
        raise Failure(
            Reason.INVALID_OPTIONS,
            f"scoring.instruction is set, and the prompt of {architecture} has no place for one. Remove it.",
        )
    _check_hardware(files, options)
    _check_split(files, profile, options)
    dtype = _dtype(files.dtype, profile, options)
    length, need = _length(files, profile, options, dtype)
    instruction = options.instruction or profile.instruction
    return ServePlan(
        family=profile.family,
        architecture=architecture,
        method=profile.method,
        score_range=profile.score_range,
        convert=profile.convert,
        hf_overrides=profile.hf_overrides,
        dtype=dtype,
        context_length=length,
        parameters=files.parameters,
        weights_bytes=files.weights_bytes,
        memory_bytes=need.total * options.split,
        split=options.split,
        kv_cache_bytes=need.cache or None,
        gpu_memory_utilization=options.gpu_memory_utilization,
        pooler_config=profile.pooler_config,
        template=chat_template.load(profile.template, instruction) if profile.template else None,
        instruction=instruction,
        pointwise=profile.pointwise,
        max_documents=profile.max_documents,
        remote_code=profile.remote_code,
        truncation=Truncation(
            options.max_tokens_per_document, options.max_tokens_per_query, OnOverflow(options.on_overflow)
        ),
    )


def _check_options(options: Options) -> None:
    utilization = options.gpu_memory_utilization
    limits = {
        "engine.maxModelLen": options.max_model_len,
        "scoring.truncation.maxTokensPerDocument": options.max_tokens_per_document,
        "scoring.truncation.maxTokensPerQuery": options.max_tokens_per_query,
    }
    wrong = [
        f"{name} is {value}, not 1 or more"
        for name, value in limits.items()
        if value is not None and value < 1
    ]
    if options.dtype not in (None, "auto", *memory.DTYPE_BYTES):
        wrong.append(f"engine.dtype is {options.dtype}, not one of auto, {', '.join(memory.DTYPE_BYTES)}")
    if options.split not in split.COUNTS:
        counts = ", ".join(map(str, split.COUNTS))
        wrong.append(f"resources.gpu.count is {options.split}, not one of {counts}")
    if utilization is not None and not 0 < utilization <= 1:
        wrong.append(f"engine.gpuMemoryUtilization is {utilization}, not above 0 and at most 1")
    if utilization is not None and options.device is Device.CPU:
        wrong.append("engine.gpuMemoryUtilization is set, and there is no GPU")
    if wrong:
        raise Failure(Reason.INVALID_OPTIONS, f"{'; '.join(wrong)}.")


def _check_hardware(files: ModelFiles, options: Options) -> None:
    if files.config.get("quantization_config"):
        raise Failure(
            Reason.UNSUPPORTED_ARCHITECTURE,
            "The weights are quantised (quantization_config). Rerankers are served in float32, float16 or "
            "bfloat16 only, for quantised ones have given wrong scores: choose the original model.",
        )
    head = memory.head_size(files.config)
    if options.device is Device.CPU and head % _CPU_HEAD_MULTIPLE:
        raise Failure(
            Reason.UNSUPPORTED_ARCHITECTURE,
            f"On a CPU attention heads need a size in multiples of {_CPU_HEAD_MULTIPLE}; here it is {head}. "
            "Set resources.gpu.count: 1.",
        )


def _check_split(files: ModelFiles, profile: Profile, options: Options) -> None:
    wanted, seen = options.split, options.gpus
    why = split.obstacle(files, profile, wanted)
    if why:
        possible = [str(n) for n in split.COUNTS if n < wanted and not split.obstacle(files, profile, n)]
        raise Failure(
            Reason.INVALID_OPTIONS,
            f"The model cannot be split over {wanted} GPUs: {why}. Set resources.gpu.count: "
            f"{' or '.join(possible)}.",
        )
    if seen is not None and seen < wanted:
        raise Failure(
            Reason.GPU_UNUSABLE,
            f"The model is to be split over {wanted} GPUs (resources.gpu.count), and the container sees "
            f"{seen}. A ResourceClaimTemplate must ask for as many.",
        )


def _dtype(weights: str, profile: Profile, options: Options) -> str:
    asked = None if options.dtype == "auto" else options.dtype
    if options.device is Device.CPU:
        # As the reference computes: half precision saves memory there, not time, and moves scores by up to
        # 0.06.
        return asked or "float32"
    dtype = asked or {"BF16": "bfloat16", "F16": "float16"}.get(weights, profile.half)
    capability = options.gpu_capability
    if dtype != "bfloat16" or capability is None or capability >= _BFLOAT16:
        return dtype
    if asked:
        version = ".".join(map(str, capability))
        raise Failure(
            Reason.INVALID_OPTIONS,
            f"engine.dtype is bfloat16, and the GPU (compute capability {version}) does not compute it. "
            f"Remove it, and {profile.without_bfloat16} is taken, or choose a GPU of 8.0 or later.",
        )
    return profile.without_bfloat16


def _length(files: ModelFiles, profile: Profile, options: Options, dtype: str) -> tuple[int, Need]:
    """The longest text that is read, and what that takes; a shorter one where nobody asked for a length, the
    cache is what does not fit, and a shorter one does.
    """
    asked = options.max_model_len
    if asked is not None and asked > profile.longest:
        raise Failure(
            Reason.INVALID_OPTIONS,
            f"engine.maxModelLen is {asked}, and the model reads at most {profile.longest} tokens.",
        )
    usual = min(profile.longest, profile.usual or profile.longest)
    if profile.caches and options.device is Device.CPU:
        usual = min(usual, _CPU_LENGTH)
    lengths = [asked or usual]
    while asked is None and profile.caches and lengths[-1] // 2 >= _SHORTEST:
        lengths.append(lengths[-1] // 2)
    available = _available(options)
    for length in lengths:
        need = _need(files, profile, options, dtype, length)
        if available is None or need.total <= available:
            return length, need
    more = [
        count
        for count in split.COUNTS
        if options.device is Device.CUDA
        and count > options.split
        and not split.obstacle(files, profile, count)
        and _need(files, profile, replace(options, split=count), dtype, length).total <= (available or 0)
    ]
    raise _too_large(options, length, need, available or 0, more=min(more, default=None))


def _need(files: ModelFiles, profile: Profile, options: Options, dtype: str, length: int) -> Need:
    return memory.need(
        files.config,
        files.parameters,
        dtype=dtype,
        length=length,
        caches=profile.caches,
        device=options.device,
        split=options.split,
    )


def _available(options: Options) -> int | None:
    """Bytes for each part of the model."""
    if options.device is Device.CPU:
        return None if options.memory_limit is None else options.memory_limit // options.split
    if options.gpu_memory is None:
        return None
    return int(options.gpu_memory * (options.gpu_memory_utilization or _UTILIZATION))


def _too_large(options: Options, length: int, need: Need, available: int, *, more: int | None) -> Failure:
    what = (
        f"needs about {need.total / GIB:.1f} GiB ({need.describe()}) for texts of {length} tokens, "
        f"{(need.total - available) / GIB:.1f} GiB more than"
    )
    shorter = ", or engine.maxModelLen to a shorter length" if need.cache and options.max_model_len else ""
    if options.device is Device.CPU:
        return Failure(
            Reason.ENGINE_OUT_OF_MEMORY,
            f"On a CPU the model {what} the {available / GIB:.1f} GiB that the container may use: "
            f"set resources.memory: {-(-need.total // GIB)}Gi or more{shorter}.",
        )
    memory_of_gpu = math.ceil(need.total / _UTILIZATION / GIB)
    each = "The model" if options.split == 1 else f"Each of {options.split} parts of the model"
    several = f", or several of these (resources.gpu.count: {more})" if more else ""
    return Failure(
        Reason.GPU_OUT_OF_MEMORY,
        f"{each} {what} the {available / GIB:.1f} GiB of the GPU's memory that vLLM may use: "
        f"choose a larger GPU (resources.gpu.minMemory: {memory_of_gpu}Gi){several}{shorter}.",
    )
