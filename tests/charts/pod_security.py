"""Pod Security `restricted`, and what this project adds to it, as a list of what is wrong with a pod."""

from collections.abc import Iterator
from typing import Any

VOLUMES = {
    "configMap",
    "csi",
    "downwardAPI",
    "emptyDir",
    "ephemeral",
    "persistentVolumeClaim",
    "projected",
    "secret",
}
POD_KINDS = {"Deployment", "Job", "StatefulSet", "DaemonSet"}


def pod_specs(objects: list[dict[str, Any]]) -> Iterator[tuple[str, dict[str, Any]]]:
    """The pod spec of every object that makes pods, with the object's kind and name."""
    for item in objects:
        name = f"{item['kind']}/{item['metadata']['name']}"
        if item["kind"] == "Pod":
            yield name, item["spec"]
        if item["kind"] in POD_KINDS:
            yield name, item["spec"]["template"]["spec"]


def violations(spec: dict[str, Any]) -> list[str]:
    """What keeps a pod from being `restricted` (Kubernetes' Pod Security Standards) or from our own rules."""
    pod = spec.get("securityContext", {})
    found = [f"pod: {field}" for field in ("hostNetwork", "hostPID", "hostIPC") if spec.get(field)]
    if pod.get("runAsNonRoot") is not True:
        found.append("pod: runAsNonRoot")
    if pod.get("runAsUser", 0) == 0:
        found.append("pod: runAsUser")
    if pod.get("seccompProfile", {}).get("type") not in ("RuntimeDefault", "Localhost"):
        found.append("pod: seccompProfile")
    if "automountServiceAccountToken" not in spec:
        found.append("pod: automountServiceAccountToken not said")
    found += [
        f"volume {volume['name']}: type"
        for volume in spec.get("volumes", [])
        if not VOLUMES & (volume.keys() - {"name"})
    ]
    for container in spec.get("initContainers", []) + spec["containers"]:
        found += [f"{container['name']}: {what}" for what in container_violations(container)]
    return found


def container_violations(container: dict[str, Any]) -> list[str]:
    """What is wrong with one container."""
    context = container.get("securityContext", {})
    checks = {
        "allowPrivilegeEscalation": context.get("allowPrivilegeEscalation") is False,
        "privileged": not context.get("privileged"),
        "readOnlyRootFilesystem": context.get("readOnlyRootFilesystem") is True,
        "capabilities": context.get("capabilities") == {"drop": ["ALL"]},
        "runAsUser": context.get("runAsUser", 1) != 0,
        "requests": {"cpu", "memory"} <= container.get("resources", {}).get("requests", {}).keys(),
        "memory limit": "memory" in container.get("resources", {}).get("limits", {}),
        "hostPort": all("hostPort" not in port for port in container.get("ports", [])),
    }
    return [what for what, holds in checks.items() if not holds]
