"""Pods of a cluster by what they are, and how they are killed, cut off and rolled."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from knative.local.ports import DOMAINS
from tests.attack.cluster import PLATFORM, Cluster

_HERE = "shop-chaos"
_SCRIPT = (Path(__file__).parent / "on_node.py").read_text()
_READY_SECONDS = 300


@dataclass(frozen=True)
class Kind:
    """A kind of pod. Of one that `keeps` its volume only the processes are killed, and its pod stays."""

    name: str
    namespace: str
    selector: str
    keeps: bool = False


STORE = Kind("PostgreSQL", PLATFORM, "app.kubernetes.io/name=postgres", keeps=True)
KINDS = (
    *(Kind(f"{domain}, rpc", PLATFORM, f"serving.knative.dev/service={domain}") for domain in DOMAINS),
    *(Kind(f"{domain}, events", PLATFORM, f"serving.knative.dev/service={domain}-events") for domain in DOMAINS),
    Kind("gateway", PLATFORM, "serving.knative.dev/service=gateway"),
    Kind("dead letters", PLATFORM, "app.kubernetes.io/name=dead-letters", keeps=True),
    STORE,
    Kind("activator", "knative-serving", "app=activator"),
    Kind("autoscaler", "knative-serving", "app=autoscaler"),
    Kind("broker ingress", "knative-eventing", "eventing.knative.dev/brokerRole=ingress"),
    Kind("broker filter", "knative-eventing", "eventing.knative.dev/brokerRole=filter"),
    Kind("channel dispatcher", "knative-eventing", "messaging.knative.dev/role=dispatcher"),
    Kind("Kafka receiver", "knative-eventing", "app=kafka-broker-receiver"),
    Kind("Kafka dispatcher", "knative-eventing", "app=kafka-broker-dispatcher"),
    Kind("Kafka", "kafka", "app=kafka", keeps=True),
    Kind("istiod", "istio-system", "app=istiod"),
    Kind("ingress", "istio-system", "istio=ingressgateway"),
)


class Operator:
    """Does to a cluster what happens to clusters."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster

    def start(self) -> None:
        """Start a privileged pod on every node: a signal that a container cannot catch comes only from outside it."""
        self._cluster.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": _HERE}})
        service = self._cluster.get("services.serving.knative.dev", "gateway", "-n", PLATFORM)
        image = service["spec"]["template"]["spec"]["containers"][0]["image"]
        nodes = [node["metadata"]["name"] for node in self._cluster.get("nodes")["items"]]
        for node in nodes:
            container = {
                "name": "chaos",
                "image": image,
                "command": ["python3", "-c", "import time; time.sleep(86400)"],
                "securityContext": {"privileged": True, "runAsUser": 0},
            }
            spec = {
                "nodeName": node,
                "hostPID": True,
                "terminationGracePeriodSeconds": 0,
                "tolerations": [{"operator": "Exists"}],
                "containers": [container],
            }
            metadata = {"name": node, "namespace": _HERE}
            self._cluster.apply({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec})
        self._cluster.kubectl("wait", "-n", _HERE, "--for=condition=Ready", "pod", "--all", "--timeout=170s")

    def stop(self) -> None:
        """Remove these pods."""
        self._cluster.delete("namespace", _HERE)

    def pods(self, kind: Kind) -> list[dict[str, Any]]:
        """Return the running pods of a kind; of a Knative service those of its newest revision."""
        if not self._cluster.kubectl("get", "namespace", kind.namespace, "--ignore-not-found"):
            return []
        found = self._cluster.get("pods", "-n", kind.namespace, "-l", kind.selector)["items"]
        newest = max((_revision(pod) for pod in found), default="")
        return [
            pod
            for pod in found
            if pod["status"]["phase"] == "Running"
            and "deletionTimestamp" not in pod["metadata"]
            and _revision(pod) == newest
        ]

    def kill(self, kind: Kind) -> bool:
        """Kill one pod of a kind by SIGKILL, its pod at once after it; return False where none ran."""
        pods = self.pods(kind)
        if not pods:
            return False
        pod = random.choice(pods)
        killed = self._on_node(pod, "kill")["killed"]
        if not kind.keeps:
            name = pod["metadata"]["name"]
            self._cluster.delete("pod", name, "-n", kind.namespace, "--force", "--grace-period=0")
        return bool(killed)

    def cut(self, domain: str, store: Kind) -> list[dict[str, Any]]:
        """Cut the network between the pods of a domain and its store; return the pods that were cut off."""
        pods = [pod for kind in KINDS if kind.name.startswith(f"{domain},") for pod in self.pods(kind)]
        for pod in pods:
            self._on_node(pod, "cut", addresses=self._addresses(store))
        return pods

    def mend(self, pods: Sequence[dict[str, Any]], store: Kind) -> None:
        """Undo `cut` where the pods are still there."""
        for pod in pods:
            self._on_node(pod, "mend", addresses=self._addresses(store))

    def roll(self, annotation: str) -> None:
        """Make a new revision of every service of the platform, and wait until all are ready."""
        annotations = {"annotations": {"chaos/revision": annotation or None}}
        patch = json.dumps({"spec": {"template": {"metadata": annotations}}})
        services = self._cluster.kubectl("get", "services.serving.knative.dev", "-n", PLATFORM, "-o", "name").split()
        for service in services:
            self._cluster.kubectl("patch", "-n", PLATFORM, service, "--type=merge", "-p", patch)
        deadline = time.monotonic() + _READY_SECONDS
        for service in services:
            while not self._is_rolled(service):
                if time.monotonic() > deadline:
                    raise TimeoutError(f"{service} has no ready revision after {_READY_SECONDS} s")
                time.sleep(2)

    def _is_rolled(self, service: str) -> bool:
        found = self._cluster.get("-n", PLATFORM, service)
        status = found["status"]
        seen = status.get("observedGeneration") == found["metadata"]["generation"]
        return bool(seen and status.get("latestReadyRevisionName") == status.get("latestCreatedRevisionName"))

    def _addresses(self, store: Kind) -> list[str]:
        pods = [pod["status"]["podIP"] for pod in self.pods(store)]
        services = self._cluster.get("services", "-n", store.namespace, "-l", store.selector)["items"]
        addresses = [service["spec"]["clusterIP"] for service in services]
        return pods + [address for address in addresses if address != "None"]

    def _on_node(self, pod: dict[str, Any], command: str, **given: Any) -> dict[str, Any]:
        statuses = pod["status"].get("containerStatuses", ())
        containers = [each["containerID"].rpartition("/")[2] for each in statuses if "containerID" in each]
        arguments = json.dumps({"containers": containers, **given})
        node = pod["spec"]["nodeName"]
        words = ("exec", "-n", _HERE, node, "--", "python3", "-c", _SCRIPT, command, arguments)
        done: dict[str, Any] = json.loads(self._cluster.kubectl(*words))
        return done


def _revision(pod: dict[str, Any]) -> str:
    name: str = pod["metadata"]["labels"].get("serving.knative.dev/revision", "")
    return name
