"""For how long keys are taken from a state that nobody confirms."""

import pytest

from rerank_api import keys
from rerank_gateway.auth import Authenticator
from rerank_gateway.errors import ApiError
from rerank_gateway.state import State
from tests.rerank_gateway import objects
from tests.rerank_gateway.harness import MINTED, ByHand, Running

NOW = 1_800_000_000.0
UNKNOWN = keys.mint().text
DISABLED = keys.mint()


class TwoNamespaces(ByHand):
    """One of them, `default`, is read no more."""

    def keys_age(self, namespace: str | None) -> float:
        return self.age if namespace == "default" else 0.0


def refusal(credential: str | None, *, age: float, source: type[ByHand] = ByHand) -> tuple[int, str]:
    state = State()
    by_hand = source(state, age=age)
    by_hand.put(
        objects.api_key(MINTED),
        objects.api_key(DISABLED, name="disabled", namespace="team-b", disabled=True),
    )
    try:
        Authenticator(state, by_hand, 900).authenticate(credential, NOW)
    except ApiError as error:
        return error.status, error.code
    return 200, ""


@pytest.mark.parametrize(
    ("credential", "age", "expected"),
    [
        (MINTED.text, 899, (200, "")),
        (MINTED.text, 901, (503, "api_keys_unconfirmed")),
        (MINTED.text, float("inf"), (503, "api_keys_unconfirmed")),
        (UNKNOWN, 899, (401, "invalid_api_key")),
        (UNKNOWN, 901, (503, "api_keys_unconfirmed")),  # it may be new
        (DISABLED.text, 899, (401, "api_key_disabled")),
        (DISABLED.text, 901, (503, "api_keys_unconfirmed")),  # it may be enabled again
        (None, 901, (401, "missing_api_key")),  # nobody needs to be asked
        ("rk_mistyped", 901, (401, "invalid_api_key")),
    ],
    ids=range(9),  # minted keys differ between processes, which have to find the same tests
)
def test_by_the_age_of_what_is_known(credential: str | None, age: float, expected: tuple[int, str]) -> None:
    assert refusal(credential, age=age) == expected


@pytest.mark.parametrize(
    ("credential", "expected"),
    [
        (MINTED.text, (503, "api_keys_unconfirmed")),
        (DISABLED.text, (401, "api_key_disabled")),
        (UNKNOWN, (401, "invalid_api_key")),
    ],
    ids=range(3),
)
def test_a_namespace_that_cannot_be_read_costs_the_others_nothing(
    credential: str, expected: tuple[int, str]
) -> None:
    assert refusal(credential, age=901, source=TwoNamespaces) == expected


@pytest.mark.asyncio(loop_scope="session")
async def test_clients_and_probes_are_told_why(gateway: Running) -> None:
    gateway.source.age = 100
    assert (await gateway.rerank()).status == 200
    served = await gateway.internal("/readyz")
    assert (served.status, served.body) == (200, b"ready\nnot confirmed for 100 seconds: by hand\n")
    gateway.source.age = 901
    refused = await gateway.rerank()
    listed = await gateway.get("/v1/models")
    probed = await gateway.internal("/readyz")
    gateway.source.age = 0
    assert (refused.status, listed.status, probed.status) == (503, 503, 503)
    assert refused.headers["Retry-After"] == "5"
    assert "900 seconds" in refused.body["message"]
    assert probed.body.startswith(b"no key is accepted: ")
    assert (await gateway.rerank()).status == 200
