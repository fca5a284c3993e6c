"""Put empty stand-ins in the place of the CUDA libraries that a CUDA build of torch is linked against.

Called by the Dockerfile (target `runtime-cpu`) where only the CUDA build of torch can be had: on a machine
without a GPU it needs those 2.7 GB of libraries for one thing, to be loadable. A stand-in defines the
functions that torch's own libraries ask of it; calling one traps at once (`ud2`), which no path of the CPU
backend does. libcudart and libcupti stay the real ones (torch asks them at start whether there is a driver).

Usage: cuda_stand_ins.py TORCH_LIB_DIRECTORY   (needs `as`, `ld` and `nm` on PATH)
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

# The libraries that are replaced, and how the names of their functions begin.
CUDA = {
    "libcublas": "cublas",
    "libcublasLt": "cublasLt",
    "libcudnn": "cudnn",
    "libcufft": "cufft",
    "libcufile": "cuFile",
    "libcurand": "curand",
    "libcusolver": "cusolver",
    "libcusparse": "cusparse",
    "libcusparseLt": "cusparseLt",
    "libnccl": "nccl",
    "libnvrtc": "nvrtc",
    "libnvshmem_host": "nvshmem",
}


def run(*args: str) -> list[str]:
    return subprocess.run(  # noqa: S603 - binutils, on files of the image
        args, check=True, capture_output=True, text=True
    ).stdout.splitlines()


def needed(library: Path) -> set[str]:
    """Sonames that a library is linked against."""
    return {
        line.split("[")[1].rstrip("]") for line in run("readelf", "-dW", str(library)) if "(NEEDED)" in line
    }


def undefined(library: Path) -> set[tuple[str, str]]:
    """(symbol, version or "") that a library takes from others."""
    names = (line.split()[-1] for line in run("nm", "-D", "--undefined-only", str(library)))
    return {(symbol, version.lstrip("@")) for symbol, _, version in (n.partition("@") for n in names)}


def owner(symbol: str, version: str, sonames: dict[str, str]) -> str | None:
    """The replaced library that a symbol belongs to: the version says it, else the longest fitting prefix."""
    if version in sonames.values():
        return version
    fitting = [lib for lib in sonames if symbol.startswith(CUDA[lib])]
    return sonames[max(fitting, key=lambda lib: len(CUDA[lib]))] if fitting else None


def link(target: Path, symbols: set[tuple[str, str]], work: Path) -> None:
    """Write a shared library that defines these symbols, under their versions."""
    source, obj, script = work / "stub.s", work / "stub.o", work / "stub.map"
    lines = [f".globl {s}\n.type {s}, @function\n{s}:" for s, _ in sorted(symbols)]
    source.write_text("\n".join([".text", *lines, "ud2", '.section .note.GNU-stack,"",@progbits', ""]))
    run("as", "-o", str(obj), str(source))
    versions: dict[str, list[str]] = {}
    for symbol, version in sorted(symbols):
        if version:
            versions.setdefault(version, []).append(symbol)
    script.write_text("".join(f"{v} {{ global: {'; '.join(names)}; }};\n" for v, names in versions.items()))
    options = ["--version-script", str(script)] if versions else []
    run("ld", "-shared", "-soname", target.name, *options, "-o", str(target), str(obj))


def main() -> None:
    folder = Path(sys.argv[1])
    libraries = sorted(folder.glob("lib*.so"))
    sonames = {n.split(".so")[0]: n for lib in libraries for n in needed(lib) if n.split(".so")[0] in CUDA}
    symbols: dict[str, set[tuple[str, str]]] = {name: set() for name in sonames.values()}
    for symbol, version in set().union(*map(undefined, libraries)):
        name = owner(symbol, version, sonames)
        if name:
            symbols[name].add((symbol, version))
    with tempfile.TemporaryDirectory() as work:
        for name, wanted in symbols.items():
            link(folder / name, wanted, Path(work))
    print(f"{len(symbols)} libraries with {sum(map(len, symbols.values()))} functions")  # noqa: T201 - a build's output


if __name__ == "__main__":
    main()
