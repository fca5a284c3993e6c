"""`python -m bench.vllm.message_queue WAITING…` in the runtime's environment: what waiting for messages in
vLLM's shared memory costs, and how long they take.

Two processes talk as engine and worker do: a message, some work, an answer, a pause. WAITING is `spinning`
(vLLM's own), `sleeping` (our plugin's), or `signals`: asleep at once and until woken, which shows how often
a signal is lost. Prints JSON: for each the milliseconds that every message took, and the worker's processor
time a second.
"""

from __future__ import annotations

import json
import multiprocessing
import sys
import time
from multiprocessing.connection import Connection

from vllm.distributed.device_communicators import shm_broadcast
from vllm.distributed.device_communicators.shm_broadcast import MessageQueue

from rerank_runtime import vllm_plugin

# Seconds between an answer and the next message: at once, as the steps of a large request come; now and then,
# as small requests do; and after vLLM's reader has gone to sleep by itself.
_PAUSES = (*[0.0] * 400, *[0.0005, 0.001, 0.002, 0.005, 0.02] * 80, *[0.1] * 20, 1.2, 1.2)
_WORK_SECONDS = 0.0003
_FORK = multiprocessing.get_context("fork")


def main() -> None:
    """Try each way of waiting in a process of its own, with everything imported once."""
    told = {}
    for waiting in sys.argv[1:]:
        mine, its = _FORK.Pipe()
        trial = _FORK.Process(target=_try, args=(waiting, its))
        trial.start()
        its.close()
        told[waiting] = mine.recv()
        trial.join()
    print(json.dumps(told))


def _try(waiting: str, caller: Connection) -> None:
    if waiting == "sleeping":
        vllm_plugin.sleep_between_messages()
    elif waiting == "signals":
        shm_broadcast.SpinCondition.__init__.__defaults__ = (-1.0,)
        shm_broadcast.SHM_READER_RECHECK_INTERVAL_MS = 100  # else a lost one costs 5 s
    mine, its = _FORK.Pipe()
    # Forked before there are sockets, which no fork inherits.
    worker = _FORK.Process(target=_work, args=(its,))
    worker.start()
    there = MessageQueue(1, 1)
    mine.send(there.export_handle())
    back = MessageQueue.create_from_handle(mine.recv(), 0)
    there.wait_until_ready()
    back.wait_until_ready()
    took: list[float] = []
    for number, pause in enumerate(_PAUSES):
        time.sleep(pause)
        there.enqueue((number, time.monotonic()))
        echoed, there_seconds, sent = back.dequeue(timeout=60)
        if echoed != number:
            raise RuntimeError(f"{echoed} came instead of {number}")
        took += [there_seconds, time.monotonic() - sent]
    there.enqueue((None, 0.0))
    busy = mine.recv()
    worker.join()
    caller.send({"milliseconds": [round(1000 * t, 3) for t in took], "busy": busy})


def _work(pipe: Connection) -> None:
    there = MessageQueue.create_from_handle(pipe.recv(), 0)
    back = MessageQueue(1, 1)
    pipe.send(back.export_handle())
    there.wait_until_ready()
    back.wait_until_ready()
    start, used = time.monotonic(), time.process_time()
    while True:
        message: tuple[int | None, float] = there.dequeue(indefinite=True)
        number, sent = message
        received = time.monotonic()
        if number is None:
            pipe.send((time.process_time() - used) / (received - start))
            return
        while time.monotonic() < received + _WORK_SECONDS:
            pass
        back.enqueue((number, received - sent, time.monotonic()))


if __name__ == "__main__":
    main()
