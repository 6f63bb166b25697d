"""A cluster that the platform runs on, and pods in it from which it is attacked."""

from __future__ import annotations

import base64
import json
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from events.service_keys import PrivateKey

PLATFORM = "shop"
"""The platform's namespace."""
INGRESS = "istio-ingressgateway.istio-system.svc.cluster.local"
_SCRIPT = (Path(__file__).parent / "in_pod.py").read_text()
_CONTAINER = "attacker"
_SECONDS = 180


class Cluster:
    """Commands of kubectl, as the administrator that KUBECONFIG names."""

    def kubectl(self, *arguments: str, given: str = "") -> str:
        """Return what kubectl prints. Raises RuntimeError with its complaint."""
        done = subprocess.run(
            ["kubectl", *arguments],
            input=given,
            capture_output=True,
            text=True,
            timeout=_SECONDS,
            check=False,
        )
        if done.returncode:
            raise RuntimeError(f"kubectl {' '.join(arguments[:4])}: {done.stderr.strip()}")
        return done.stdout

    def get(self, *arguments: str) -> dict[str, Any]:
        """Return an object, or a list of them."""
        found: dict[str, Any] = json.loads(self.kubectl("get", *arguments, "-o", "json"))
        return found

    def secret(self, name: str) -> dict[str, str]:
        """Return the entries of a Secret of the platform."""
        entries = self.get("secret", name, "-n", PLATFORM)["data"]
        return {entry: base64.b64decode(value).decode() for entry, value in entries.items()}

    def apply(self, *objects: Mapping[str, Any]) -> None:
        """Create or change these objects."""
        self.kubectl(
            "apply",
            "--validate=false",
            "-f",
            "-",
            given=json.dumps({"apiVersion": "v1", "kind": "List", "items": objects}),
        )

    def delete(self, kind: str, name: str, *arguments: str) -> None:
        """Delete an object, if it is there, without waiting for its end."""
        self.kubectl("delete", kind, name, "--ignore-not-found", "--wait=false", *arguments)


@dataclass
class Attacker:
    """A pod whose owner runs what they like in it, within the restricted pod standard."""

    cluster: Cluster
    namespace: str
    name: str

    def run(self, command: str, **given: Any) -> dict[str, Any]:
        """Run a command of `in_pod`. Raises RuntimeError where the command fails."""
        return run_in(self.cluster, self.namespace, self.name, _CONTAINER, command, **given)

    def request(self, url: str, method: str = "GET", **given: Any) -> tuple[int, str]:
        """Send one HTTP request; return status and body, or 0 where nothing answers."""
        answer = self.run("request", url=url, method=method, **given)
        return answer["status"], answer["body"]


def run_in(cluster: Cluster, namespace: str, pod: str, container: str, command: str, **given: Any) -> dict[str, Any]:
    """Run a command of `in_pod` in a container that has Python. Raises RuntimeError where the command fails."""
    words = ("exec", "-n", namespace, pod, "-c", container, "--", "python3", "-c", _SCRIPT)
    found: dict[str, Any] = json.loads(cluster.kubectl(*words, command, json.dumps(given)))
    return found


def start(cluster: Cluster, namespace: str, name: str) -> Attacker:
    """Start an attacker's pod, from an image of the platform, which is there already and has Python."""
    service = cluster.get("services.serving.knative.dev", "gateway", "-n", PLATFORM)
    image = service["spec"]["template"]["spec"]["containers"][0]["image"]
    container = {
        "name": _CONTAINER,
        "image": image,
        "command": ["python3", "-c", "import time; time.sleep(3600)"],
        "resources": {"requests": {"cpu": "10m", "memory": "64Mi"}, "limits": {"memory": "256Mi"}},
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
            "readOnlyRootFilesystem": True,
            "runAsNonRoot": True,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
    }
    spec = {
        "automountServiceAccountToken": False,
        "terminationGracePeriodSeconds": 0,
        "restartPolicy": "Never",
        "containers": [container],
    }
    metadata = {"name": name, "namespace": namespace, "labels": {"app.kubernetes.io/name": name}}
    cluster.apply({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec})
    cluster.kubectl("wait", "-n", namespace, "--for=condition=Ready", f"pod/{name}", "--timeout=120s")
    return Attacker(cluster, namespace, name)


def key_of(cluster: Cluster, service: str) -> PrivateKey:
    """Return the key of a service of the platform, as whoever took that service over has it."""
    return PrivateKey.from_pem(service, cluster.secret(f"service-key-{service}")["service.pem"])
