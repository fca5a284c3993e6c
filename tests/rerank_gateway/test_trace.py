"""W3C Trace Context: what is passed on, and what is not."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rerank_gateway.trace import Trace
from tests.rerank_gateway.fuzzing import fuzz

ID = "0af7651916cd43dd8448eb211c80319c"
SPAN = "b7ad6b7169203331"
PARENT = f"00-{ID}-{SPAN}-01"


def sent(traceparent: str, tracestate: str = "") -> dict[str, str]:
    lines = Trace(traceparent.encode("latin-1"), tracestate.encode("latin-1")).attempt().decode()
    assert lines.endswith("\r\n")
    return dict(line.split(": ", 1) for line in lines.split("\r\n")[:-1])


@pytest.mark.parametrize(
    ("traceparent", "flags"),
    [
        (PARENT, "01"),
        (f"00-{ID}-{SPAN}-00", "00"),
        (f"00-{ID}-{SPAN}-ff", "03"),
        (f"cc-{ID}-{SPAN}-01", "01"),
        (f"cc-{ID}-{SPAN}-01-what-comes-next", "01"),
    ],
)
def test_a_valid_trace_goes_on(traceparent: str, flags: str) -> None:
    assert sent(traceparent)["traceparent"] == f"00-{ID}-{SPAN}-{flags}"


@pytest.mark.parametrize(
    "traceparent",
    [
        "",
        "00",
        f"00-{ID}-{SPAN}",
        f"ff-{ID}-{SPAN}-01",
        f"00-{ID}-{SPAN}-01-more",
        f"00-{'0' * 32}-{SPAN}-01",
        f"00-{ID}-{'0' * 16}-01",
        f"00-{ID.upper()}-{SPAN}-01",
        f"00-{ID[:-1]}-{SPAN}-01",
        f"00-{ID}g-{SPAN}-01",
        f" {PARENT}",
        f"{PARENT} ",
        f"{PARENT}\r\nX: y",
        f"{PARENT},{PARENT}",
        f"cc-{ID}-{SPAN}-01.x",
    ],
)
def test_what_is_no_trace_goes_nowhere(traceparent: str) -> None:
    assert set(sent(traceparent, "a=b")) == {"X-Request-Id"}


@pytest.mark.parametrize(
    ("tracestate", "kept"),
    [
        ("a=b", "a=b"),
        ("a=b,c@d=e f", "a=b,c@d=e f"),
        (" a=b ,\tc=d", "a=b,c=d"),
        ("a=b,,c=d", "a=b,c=d"),
        ("", None),
        ("a", None),
        ("A=b", None),
        ("a=b,a=c", None),
        ("a=b=c", None),
        ("a=b\r\nX: y", None),
        ("a=\xe9", None),
        ("a=b,\0", None),
        (",".join(f"k{number}=v" for number in range(32)), "same"),
        (",".join(f"k{number}=v" for number in range(33)), None),
        (f"a={'b' * 256}", f"a={'b' * 256}"),
        (f"a={'b' * 257}", None),
        (f"a={'b' * 250},c={'d' * 250},e={'f' * 100}", None),
    ],
)
def test_the_state_is_kept_whole_or_not_at_all(tracestate: str, kept: str | None) -> None:
    assert sent(PARENT, tracestate).get("tracestate") == (tracestate if kept == "same" else kept)


def test_every_attempt_has_names_of_its_own() -> None:
    trace = Trace(PARENT.encode())
    first, second = trace.attempt(), trace.attempt()
    assert first.split(b"\r\n")[0] == f"X-Request-Id: {trace.id}-1".encode()
    assert second.split(b"\r\n")[0] == f"X-Request-Id: {trace.id}-2".encode()
    assert Trace().id != trace.id


@fuzz(300)
@given(st.binary(max_size=80), st.binary(max_size=60))
def test_nothing_breaks_out_of_its_line(traceparent: bytes, tracestate: bytes) -> None:
    for parent in (traceparent, PARENT.encode()):
        lines = Trace(parent, tracestate).attempt()
        names = [line.split(b":")[0] for line in lines.split(b"\r\n")]
        assert names in (
            [b"X-Request-Id", *[b"traceparent", b"tracestate"][:count], b""] for count in range(3)
        )
        assert lines.replace(b"\r\n", b"").isascii()
        assert b"\n" not in lines.replace(b"\r\n", b"")
