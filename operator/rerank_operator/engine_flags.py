"""Flags of vLLM that no ModelDeployment may set, whatever an administrator allows, and why. For policy.

Read in vLLM 0.32 (vllm/engine/arg_utils.py, vllm/entrypoints). Its parser takes an unambiguous beginning of a
flag for the flag, so the beginning of one of these is refused like the flag.
"""

from collections.abc import Iterable
from typing import Final

_RUNTIME: Final = "the runtime sets it itself"
_CODE: Final = "it would load code into the server"
_OUTSIDE: Final = "it would let the server read or send what is none of its business"
_FIELD: Final = "it has a field of its own, {}"

_BY_REASON: Final[dict[str, tuple[str, ...]]] = {
    _FIELD.format("spec.engine.dtype"): ("dtype",),
    _FIELD.format("spec.engine.maxModelLen"): ("max-model-len",),
    _FIELD.format("spec.engine.gpuMemoryUtilization"): (
        "gpu-memory-utilization",
        "device-memory-utilization",
    ),
    _FIELD.format("spec.engine.trustRemoteCode"): ("trust-remote-code",),
    _FIELD.format("spec.model.huggingFace.revision"): ("revision", "code-revision", "tokenizer-revision"),
    _FIELD.format("spec.resources.gpu.count"): (
        "tensor-parallel-size",
        "pipeline-parallel-size",
        "data-parallel-size",
        "device-ids",
    ),
    _RUNTIME: (
        "api-server-count",
        "chat-template",
        "chat-template-content-format",
        "config-format",
        "convert",
        "default-chat-template-kwargs",
        "disable-uvicorn-access-log",
        "enable-log-deltas",
        "h11-max-header-count",
        "h11-max-incomplete-event-size",
        "headless",
        "help",
        "hf-config-path",
        "hf-overrides",
        "host",
        "kv-cache-memory-bytes",
        "load-format",
        "middleware",
        "model",
        "pooler-config",
        "port",
        "renderer-num-workers",
        "root-path",
        "runner",
        "served-model-name",
        "skip-tokenizer-init",
        "tokenizer",
        "tokenizer-mode",
        "trust-request-chat-template",
        "uds",
        "version",
    ),
    "keys are the gateway's business": ("api-key", "allow-credentials", "allowed-headers", "allowed-methods"),
    "TLS ends before the gateway": (
        "ssl-ca-certs",
        "ssl-cert-reqs",
        "ssl-certfile",
        "ssl-ciphers",
        "ssl-keyfile",
    ),
    "texts of the users would stand in the log": ("enable-log-requests", "enable-log-outputs", "max-log-len"),
    "it would read further flags from a file": ("config",),
    _CODE: (
        "additional-config",
        "compilation-config",
        "distributed-executor-backend",
        "ec-transfer-config",
        "enable-auto-tool-choice",
        "io-processor-plugin",
        "kv-transfer-config",
        "logits-processors",
        "model-class-overrides",
        "model-loader-extra-config",
        "reasoning-parser-plugin",
        "scheduler-cls",
        "speculative-config",
        "spec-model",
        "tool-parser-plugin",
        "weight-transfer-config",
        "worker-cls",
        "worker-extension-cls",
    ),
    _OUTSIDE: (
        "allowed-local-media-path",
        "allowed-media-domains",
        "allowed-origins",
        "collect-detailed-traces",
        "data-parallel-address",
        "download-dir",
        "enable-lora",
        "hf-token",
        "ignore-patterns",
        "kv-events-config",
        "log-config-file",
        "lora-modules",
        "master-addr",
        "master-port",
        "media-io-kwargs",
        "mm-encoder-fp8-scale-path",
        "mm-encoder-fp8-scale-save-path",
        "mm-processor-kwargs",
        "nnodes",
        "node-rank",
        "otlp-traces-endpoint",
        "profiler-config",
    ),
}
NEVER: Final = {f"--{name}": reason for reason, flags in _BY_REASON.items() for name in flags}


def flag_of(argument: str) -> str:
    """The flag of an item of spec.engine.extraArgs: `--name=value` or `--name`."""
    return argument.partition("=")[0]


def never(flag: str) -> str | None:
    """Why nobody may set the flag, or None."""
    positive = f"--{flag.removeprefix('--no-')}" if flag.startswith("--no-") else flag
    return NEVER.get(positive) or next((reason for known, reason in _abbreviated(positive)), None)


def _abbreviated(flag: str) -> Iterable[tuple[str, str]]:
    return ((known, reason) for known, reason in NEVER.items() if known.startswith(flag))
