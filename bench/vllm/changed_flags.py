"""What stands for the program `vllm`: the real one, with some flags as BENCH_FLAGS says."""

from __future__ import annotations

import json
import os
import sys

from vllm.entrypoints.cli.main import main

from parity.vllm_program import changed

if __name__ == "__main__":
    sys.argv = changed(sys.argv, json.loads(os.environ["BENCH_FLAGS"]))
    main()
