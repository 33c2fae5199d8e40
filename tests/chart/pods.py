"""A kubelet in small: runs the pods of a rendered chart on this machine, each in namespaces of its own.

What a cluster would give is here too, so that nothing of a manifest is translated: every pod has an address on a bridge,
a host name, a read-only root made of the image, its volumes, its user, no capabilities, and the names of headless
services and of their pods. Not here: scheduling, limits, cluster IPs (tests call pods by their own addresses), and
seccomp. Must run in a network and mount namespace that may be changed (isolated.sh).
"""
import json
import math
import os
import pathlib
import re
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field

import grpc
from chart import NAMESPACE, REPO, component, of_kind

INIT = pathlib.Path(__file__).with_name("pod_init.py")


def run(*command):
    subprocess.run(command, check=True)


def entry_point():
    """The image's, from the Dockerfile."""
    text = (REPO / "Dockerfile").read_text()
    return json.loads(re.search(r"^ENTRYPOINT (\[.*\])$", text, re.M).group(1))


def processors(quantity):
    """Of a limit like "2" or 1500m, rounded up as Kubernetes does."""
    text = str(quantity)
    return math.ceil(float(text.removesuffix("m")) / (1000 if text.endswith("m") else 1))


def health(address, service, timeout):
    """What grpc.health.v1 says; False too if nobody answers."""
    name = service.encode()
    request = b"\x0a" + bytes([len(name)]) + name if name else b""
    with grpc.insecure_channel(address, options=[("grpc.enable_http_proxy", 0)]) as channel:
        check = channel.unary_unary("/grpc.health.v1.Health/Check")
        try:
            return check(request, timeout=timeout) == b"\x08\x01"
        except grpc.RpcError:
            return False


@dataclass
class Pod:
    name: str
    address: str
    owner: dict  # Deployment or StatefulSet
    process: subprocess.Popen
    log: pathlib.Path
    endpoint: bool = True  # names lead to it
    spec: dict = field(init=False)
    container: dict = field(init=False)

    def __post_init__(self):
        self.spec = self.owner["spec"]["template"]["spec"]
        (self.container,) = self.spec["containers"]

    @property
    def pid(self):
        """The container's first process, as this machine knows it."""
        children = pathlib.Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        return int(children[0])

    def port(self, name):
        return next(port["containerPort"] for port in self.container["ports"] if port["name"] == name)

    def probe(self, kind):
        """One probe of the manifest: startupProbe, livenessProbe, readinessProbe."""
        probe = self.container[kind]
        return health(f"{self.address}:{probe['grpc']['port']}", probe["grpc"].get("service", ""),
                      probe.get("timeoutSeconds", 1))

    def wait_for(self, kind, wanted=True, patience=30):
        """Asks until it is so: a start as long as the manifest gives it, readiness as long as `patience`, in seconds."""
        probe = self.container[kind]
        end = time.monotonic() + (probe["periodSeconds"] * probe["failureThreshold"] if kind == "startupProbe" else patience)
        while self.probe(kind) != wanted:
            assert self.process.poll() is None, f"{self.name} ended with {self.process.returncode}:\n{self.log.read_text()}"
            assert time.monotonic() < end, f"{kind} of {self.name} is not {wanted}:\n{self.log.read_text()}"
            time.sleep(0.1)

    def terminate(self):
        """What a kubelet does first: preStop, then SIGTERM."""
        time.sleep(self.container.get("lifecycle", {}).get("preStop", {}).get("sleep", {}).get("seconds", 0))
        os.kill(self.pid, signal.SIGTERM)

    def kill(self):
        """With all processes of its PID namespace, which go with the first. The program outlives unshare otherwise: who
        gives up root loses the signal at its parent's death."""
        os.kill(self.pid, signal.SIGKILL)
        self.process.wait()

    def wait_for_end(self):
        """The exit code, which must come within the grace period."""
        return self.process.wait(self.spec["terminationGracePeriodSeconds"])


class Node:
    def __init__(self, folder, objects, programs, image_root, host_paths):
        """`objects`: the manifests; `host_paths`: where hostPath volumes really are; `image_root`: of an image, or None
        for this machine's with `programs` in it."""
        self.folder, self.objects, self.programs, self.image_root = folder, objects, programs, image_root
        self.host_paths = host_paths
        self.pods = {}
        self._hosts = folder / "hosts"
        self._hosts.touch()
        self._links = []
        self._next = 2

    def __enter__(self):
        pathlib.Path("/run/netns").mkdir(parents=True, exist_ok=True)
        run("mount", "-t", "tmpfs", "netns", "/run/netns")
        run("ip", "link", "set", "lo", "up")
        run("ip", "link", "add", "pods", "type", "bridge")
        run("ip", "address", "add", "10.244.0.1/24", "dev", "pods")
        run("ip", "link", "set", "pods", "up")
        return self

    def __exit__(self, *_):
        for pod in self.pods.values():
            if pod.process.poll() is None:
                pod.kill()
        # The namespaces go when their last process has gone, which takes them a moment.
        for link in [*self._links, "pods"]:
            run("ip", "link", "delete", link)
        run("umount", "--lazy", "/run/netns")

    def start(self, owner, number):
        """Starts one pod of a Deployment or StatefulSet."""
        name = f"{owner['metadata']['name']}-{number}"
        address = f"10.244.0.{self._next}"
        self._next += 1
        namespace, link = f"pod{self._next}", f"veth{self._next}"
        run("ip", "netns", "add", namespace)
        run("ip", "link", "add", link, "type", "veth", "peer", "name", "eth0", "netns", namespace)
        run("ip", "link", "set", link, "master", "pods", "up")
        self._links.append(link)
        for command in ("link set lo up", f"address add {address}/24 dev eth0", "link set eth0 up"):
            run("ip", "-netns", namespace, *command.split())
        folder = self.folder / name
        folder.mkdir(exist_ok=True)
        spec = folder / f"{address}.json"
        spec.write_text(json.dumps(self._spec(owner, name, address, folder)))
        log = folder / f"{address}.log"
        with log.open("w") as out:
            process = subprocess.Popen(
                ["nsenter", f"--net=/run/netns/{namespace}", "unshare", "--mount", "--pid", "--ipc", "--uts", "--fork",
                 "--kill-child=KILL", sys.executable, INIT, spec], stdout=out, stderr=subprocess.STDOUT)
        pod = self.pods[name] = Pod(name, address, owner, process, log)
        self.update_names()
        return pod

    def update_names(self):
        """Headless services' names, and those of a StatefulSet's pods under its service, as a cluster's DNS has them."""
        lines = ["127.0.0.1 localhost"]
        for service in of_kind(self.objects, "Service").values():
            name = f"{service['metadata']['name']}.{NAMESPACE}.svc"
            for pod in self.pods.values():
                labels = pod.owner["spec"]["template"]["metadata"]["labels"]
                if service["spec"].get("clusterIP") != "None" or not pod.endpoint:
                    continue
                if service["spec"]["selector"].items() <= labels.items():
                    stateful = pod.owner["spec"].get("serviceName") == service["metadata"]["name"]
                    lines.append(f"{pod.address} {name}" + (f" {pod.name}.{name}" if stateful else ""))
        self._hosts.write_text("\n".join(lines) + "\n")  # in place: pods have this very file

    def of(self, role):
        return [pod for pod in self.pods.values() if component(pod.owner) == role and pod.process.poll() is None]

    def _spec(self, owner, name, address, folder):
        pod = owner["spec"]["template"]["spec"]
        (container,) = pod["containers"]
        security, own = pod["securityContext"], container["securityContext"]
        environment = {"PATH": "/usr/bin:/bin"}
        for variable in container.get("env", []):
            environment[variable["name"]] = variable.get("value") or self._look_up(variable["valueFrom"], container, name)
        args = [re.sub(r"\$\((\w+)\)", lambda match: environment[match.group(1)], arg) for arg in container["args"]]
        sources = {volume["name"]: volume for volume in pod["volumes"]}
        return {
            "name": name, "root": str(self.image_root or "/"), "scratch": str(folder / "root"),
            "programs": None if self.image_root else str(self.programs),
            "args": entry_point() + args, "environment": environment,
            "files": {"etc/hosts": str(self._hosts)},
            "mounts": [{"path": mount["mountPath"], "read_only": mount.get("readOnly", False),
                        "source": self._source(sources[mount["name"]], mount.get("subPath", ""))}
                       for mount in container["volumeMounts"]],
            "uid": security["runAsUser"], "gid": security["runAsGroup"],
            "sysctls": {sysctl["name"]: sysctl["value"] for sysctl in security.get("sysctls", [])},
            "read_only_root": own["readOnlyRootFilesystem"], "drop_capabilities": own["capabilities"]["drop"] == ["ALL"],
            "no_new_privileges": not own["allowPrivilegeEscalation"],
        }

    def _source(self, volume, sub_path):
        if "emptyDir" in volume:
            return None
        return str(pathlib.Path(self.host_paths[volume["hostPath"]["path"]]) / sub_path)

    @staticmethod
    def _look_up(source, container, name):
        if "fieldRef" in source:
            return {"metadata.name": name}[source["fieldRef"]["fieldPath"]]
        assert source["resourceFieldRef"]["resource"] == "limits.cpu"
        limit = container["resources"].get("limits", {}).get("cpu")
        return str(processors(limit) if limit else os.cpu_count())
