"""Where the models come from: the hub on the internet, or the demo hub where that one is out of reach."""

import os
import urllib.error
import urllib.request
from typing import Final

PUBLIC: Final = "https://huggingface.co"
DEMO: Final = "http://demo-hub.demo-hub.svc"
PROBE_SECONDS: Final = 4.0


def choose() -> str:
    """The address for the chart's `huggingFace.endpoint`.

    The variable HUB settles it: `demo`, or an address. Without it, HF_ENDPOINT (the hub's own clients honour
    it) or the public hub is used where it answers, and the demo hub where not.
    """
    asked = os.environ.get("HUB", "")
    if asked:
        return DEMO if asked == "demo" else asked
    wanted = os.environ.get("HF_ENDPOINT") or PUBLIC
    return wanted if answers(wanted) else DEMO


def answers(address: str) -> bool:
    """Whether something speaks HTTP there. Without the proxies of our environment: pods do not have them."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    request = urllib.request.Request(f"{address}/api/models?limit=1", method="HEAD")
    try:
        with opener.open(request, timeout=PROBE_SECONDS):
            return True
    except urllib.error.HTTPError:
        return True
    except (OSError, ValueError):
        return False
