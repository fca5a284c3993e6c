"""How many replicas a model needs, from what waits for it in the gateways. Pure; called by `autoscaling`.

Growth follows what waits: as many replicas as would work it off within the target. Shrinking follows what is
read, too: a queue that is empty only because there are enough replicas does not make them too many. What is
remembered between looks can be lost at any time: a memory that begins anew shrinks nothing before the whole
delay has passed again.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from rerank_api.model_deployment import Autoscaling

# As the HorizontalPodAutoscaler grows where nothing else is set: in 15 s by 4 or to the double
# (k8s.io/api/autoscaling/v2, HPAScalingRules).
STEP_SECONDS: Final = 15.0
_STEP: Final = 4
# A replica that is busy for more of its time than this has no room for what comes in bursts.
_FULL: Final = 0.8
# Gateways that measured within so long of each other did at the same time.
_TOGETHER_SECONDS: Final = 10.0
# So that a burst between two looks is not taken for a load that stays.
_HALF_LIFE_SECONDS: Final = 30.0


@dataclass(frozen=True, slots=True)
class Load:
    """What one gateway process knows of a model that it was asked for. Tokens are estimates.

    Attributes:
        process: its random name.
        queued_tokens: what waits for the replicas.
        running_tokens: what the replicas have been sent and not answered.
        held_requests: requests that wait for a first replica.
        read_tokens: what the replicas have read for it; counts up from its start.
        tokens_per_second: what one replica did for it while something waited; None: nothing ever did.
        measured_seconds_ago: how old that is.
        idle_seconds: since the last request.
    """

    process: str
    queued_tokens: int
    running_tokens: int
    held_requests: int
    read_tokens: int
    tokens_per_second: float | None
    measured_seconds_ago: float | None
    idle_seconds: float


@dataclass(frozen=True, slots=True)
class Memory:
    """What earlier looks at a model saw. Times are monotonic seconds.

    Attributes:
        since: when the first look was.
        busy_at: when there last was work, or may have been without being told.
        blind: the last look could not see everything, so there may have been work since.
        peaks: times and needs within the delay: each the greatest since its time, the first of all.
        read: by process, what it had counted.
        tokens: read lately, the last half a minute counting most, in `seconds`.
        seconds: see `tokens`.
        looked_at: when the last look was.
    """

    since: float
    busy_at: float
    looked_at: float
    blind: bool = True
    peaks: tuple[tuple[float, int], ...] = ()
    read: Mapping[str, int] = field(default_factory=dict)
    tokens: float = 0.0
    seconds: float = 0.0

    @classmethod
    def begun(cls, now: float) -> "Memory":
        """Nothing was seen yet: there may have been anything."""
        return cls(since=now, busy_at=now, looked_at=now)


@dataclass(frozen=True, slots=True)
class Decision:
    """How many replicas there should be. `reason` is a word, `message` a sentence; empty where all stays."""

    replicas: int
    reason: str = ""
    message: str = ""


@dataclass(frozen=True, slots=True)
class Look:
    """What is there to see now.

    Attributes:
        current: replicas that are wanted now.
        ready: replicas that serve.
        loads: of the gateways that were asked for the model.
        complete: every gateway there is has answered.
        scaled_seconds_ago: since the number last changed; inf where that is not known.
        now: monotonic seconds.
    """

    current: int
    ready: int
    loads: Sequence[Load]
    complete: bool
    scaled_seconds_ago: float
    now: float


def decide(spec: Autoscaling, look: Look, memory: Memory) -> tuple[Decision, Memory]:
    """The number of replicas from now on, and what to remember. Always within the limits of `spec`."""
    current = look.current
    speed = _speed(look.loads)
    memory = _remember(spec, look, memory, speed)
    if spec.within(current) != current:
        message = f"spec.autoscaling allows {spec.min_replicas} to {spec.max_replicas}"
        return Decision(spec.within(current), "OutOfRange", message), memory
    if current == 0:
        if _asked_for(spec, look.loads):
            return Decision(1, "Requested", "a request came"), memory
        return Decision(0), memory
    return _grown(spec, look, speed) or _shrunk(spec, look, memory) or Decision(current), memory


def _grown(spec: Autoscaling, look: Look, speed: float | None) -> Decision | None:
    current = look.current
    most = min(max(2 * current, current + _STEP), spec.max_replicas)
    target = min(_queue_need(spec, look.loads, current, speed), most)
    if target <= current or look.scaled_seconds_ago < STEP_SECONDS:
        return None
    if speed is None:
        message = f"requests wait for {_replicas(current)}, whose speed is not known yet"
    else:
        seconds = _work(look.loads) / speed / current
        message = (
            f"{seconds:.1f} s of work queued for {_replicas(current)};"
            f" the target is {spec.target_queue_seconds:g} s"
        )
    return Decision(target, "QueueTooLong", message)


def _shrunk(spec: Autoscaling, look: Look, memory: Memory) -> Decision | None:
    if spec.min_replicas == 0 and look.complete and look.now - memory.busy_at >= spec.idle_seconds:
        return Decision(0, "Idle", f"no request for {spec.idle_seconds} s")
    enough = max(1, spec.within(max(need for _, need in memory.peaks)))
    delay = spec.scale_down_delay_seconds
    if not look.complete or look.now - memory.since < delay or enough >= look.current:
        return None
    verb = "is" if enough == 1 else "are"
    message = f"{_replicas(enough)} {verb} enough for what came in the last {delay} s"
    return Decision(enough, "LessToDo", message)


def _remember(spec: Autoscaling, look: Look, memory: Memory, speed: float | None) -> Memory:
    now = look.now
    passed = max(0.0, now - memory.looked_at)
    kept = 0.5 ** (passed / _HALF_LIFE_SECONDS)
    memory = replace(
        memory,
        looked_at=now,
        read={load.process: load.read_tokens for load in look.loads},
        tokens=memory.tokens * kept + sum(_newly_read(load, memory.read) for load in look.loads),
        seconds=memory.seconds * kept + passed,
    )
    need = _need(spec, look, memory, speed)
    begin = now - spec.scale_down_delay_seconds
    peaks = (*(peak for peak in memory.peaks if peak[1] > need and peak[0] >= begin), (now, need))
    busy_at = max(memory.busy_at, _busy_at(look, memory))
    return replace(memory, peaks=peaks, busy_at=busy_at, blind=_blind(look))


def _newly_read(load: Load, before: Mapping[str, int]) -> int:
    """What was read since the last look: nothing that can be told of a process that was not there then."""
    return max(0, load.read_tokens - before.get(load.process, load.read_tokens))


def _blind(look: Look) -> bool:
    """A gateway that is silent may have work, and so may a replica that is on its way soon."""
    return not look.complete or not look.ready


def _busy_at(look: Look, memory: Memory) -> float:
    """When there was work last, or may have been."""
    working = any(load.queued_tokens or load.running_tokens or load.held_requests for load in look.loads)
    if working or _blind(look) or memory.blind:
        return look.now
    return look.now - min((load.idle_seconds for load in look.loads), default=math.inf)


def _need(spec: Autoscaling, look: Look, memory: Memory, speed: float | None) -> int:
    """Replicas that this look alone asks for. It is never less than there are where not all is known."""
    queue_need = _queue_need(spec, look.loads, look.current, speed)
    rate_need = look.current if _blind(look) else _rate_need(look.current, memory, speed)
    return min(max(1, queue_need, min(look.current, rate_need)), spec.max_replicas)


def _queue_need(spec: Autoscaling, loads: Sequence[Load], current: int, speed: float | None) -> int:
    """Replicas that would work off within the target what waits, and what they must do before.

    While no speed was measured, which takes a queue, one more than there are.
    """
    if not any(load.queued_tokens for load in loads):
        return 0
    if speed is None:
        return current + 1
    return math.ceil(min(_work(loads) / speed / spec.target_queue_seconds, float(spec.max_replicas)))


def _rate_need(current: int, memory: Memory, speed: float | None) -> int:
    """Replicas that do what is done now with room to spare. Without a speed one less is tried: if that is
    too few, something will wait, and then the speed is known.
    """
    if not memory.tokens or not memory.seconds:
        return 0
    if speed is None:
        return current - 1
    return math.ceil(min(memory.tokens / memory.seconds / (speed * _FULL), float(current)))


def _work(loads: Sequence[Load]) -> int:
    return sum(load.queued_tokens + load.running_tokens for load in loads)


def speed(measured: Sequence[tuple[float, float]]) -> float:
    """Tokens a second of one replica, of what each gateway measured and how many seconds ago; 0 of nothing.

    Gateways that measured at about the same time shared the replicas while they did: what they got adds up.
    """
    newest = min((ago for _, ago in measured), default=0.0)
    alone = max((speed for speed, _ in measured), default=0.0)
    together = sum(speed for speed, ago in measured if ago <= newest + _TOGETHER_SECONDS)
    return max(alone, together)


def _speed(loads: Sequence[Load]) -> float | None:
    """None where no gateway has measured it."""
    measured = [
        (load.tokens_per_second, load.measured_seconds_ago)
        for load in loads
        if load.tokens_per_second and load.measured_seconds_ago is not None
    ]
    return speed(measured) or None


def _asked_for(spec: Autoscaling, loads: Sequence[Load]) -> bool:
    return any(load.held_requests or load.idle_seconds < spec.idle_seconds for load in loads)


def _replicas(count: int) -> str:
    return "1 replica" if count == 1 else f"{count} replicas"
