"""The node's network: a bridge for the pods, forwarding, and a way out for pods that need one."""

import json
from pathlib import Path

from dev.cluster.commands import run, succeeds
from dev.cluster.errors import ClusterError
from dev.cluster.paths import Layout

BRIDGE = "rerank0"
ADDRESS = "10.244.0.1"
"""The node's address: of the API server, the kubelet and DNS, for pods and for the host."""
POD_RANGE = "10.244.0.0/24"
CNI_NETWORK = "rerank"
CNI_PLUGINS = Path("/usr/lib/cni")
CNI_RESULTS = Path("/var/lib/cni/results")

TABLE = "rerank-cluster"
# Pods may reach what the host reaches (the hub, a package index), in the host's name.
MASQUERADE = f"""table ip {TABLE} {{
  chain postrouting {{
    type nat hook postrouting priority srcnat; policy accept;
    ip saddr {POD_RANGE} oifname != "{BRIDGE}" masquerade
  }}
}}
"""
PROXY_TABLES = (("ip", "kube-proxy"), ("ip6", "kube-proxy"))
FORWARDING = Path("/proc/sys/net/ipv4/ip_forward")


def up() -> None:
    """Make the bridge, forwarding and masquerading. Idempotent."""
    if not succeeds(["ip", "link", "show", BRIDGE]):
        _refuse_taken_range()
        run(["ip", "link", "add", BRIDGE, "type", "bridge"])
    run(["ip", "address", "replace", f"{ADDRESS}/24", "dev", BRIDGE])
    run(["ip", "link", "set", BRIDGE, "up"])
    FORWARDING.write_text("1")
    if not succeeds(["nft", "list", "table", "ip", TABLE]):
        run(["nft", "-f", "-"], stdin=MASQUERADE)


def down() -> None:
    """Remove all of it, and kube-proxy's tables. Idempotent."""
    _delete_tables(("ip", TABLE), *PROXY_TABLES)
    if succeeds(["ip", "link", "show", BRIDGE]):
        run(["ip", "link", "delete", BRIDGE])
    for result in CNI_RESULTS.glob(f"{CNI_NETWORK}-*-eth0"):
        sandbox = result.name.removeprefix(f"{CNI_NETWORK}-").removesuffix("-eth0")
        (CNI_RESULTS / f"cni-loopback-{sandbox}-lo").unlink(missing_ok=True)
        result.unlink()


def forget_services() -> None:
    """Remove what an earlier kube-proxy left: the next takes a chain that exists for one that is filled,
    and a Service whose rules were being replaced when the first one died would refuse connections for ever.
    """
    _delete_tables(*PROXY_TABLES)


def cni_config(layout: Layout) -> str:
    """Return the configuration of the pods' network. `hairpinMode` lets a pod reach itself by a Service."""
    bridge = {
        "type": "bridge",
        "bridge": BRIDGE,
        "isDefaultGateway": True,
        "hairpinMode": True,
        "ipam": {
            "type": "host-local",
            "ranges": [[{"subnet": POD_RANGE, "gateway": ADDRESS}]],
            "dataDir": str(layout.root / "ipam"),
        },
    }
    return json.dumps({"cniVersion": "0.4.0", "name": CNI_NETWORK, "plugins": [bridge]})


def _delete_tables(*tables: tuple[str, str]) -> None:
    for family, table in tables:
        if succeeds(["nft", "list", "table", family, table]):
            run(["nft", "delete", "table", family, table])


def _refuse_taken_range() -> None:
    route = run(["ip", "-4", "route", "show", "root", POD_RANGE]).strip()
    if route:
        raise ClusterError(f"the pods' range {POD_RANGE} is in use on this machine: {route}")
