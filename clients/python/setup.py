"""Makes the protocol's Python code from proto/ of the repository whenever the package is built or installed."""
import importlib.resources
import pathlib

import grpc_tools.protoc
from setuptools import setup

HERE = pathlib.Path(__file__).resolve().parent
PROTO = HERE.parent.parent / "proto"
FILES = ["salamander/v1/inference.proto", "salamander/v1/stream.proto", "salamander/v1/cluster.proto"]


def make_stubs():
    if not PROTO.is_dir():
        raise SystemExit(f"salamander-client is built within its repository: {PROTO} does not exist")
    includes = [f"-I{PROTO}", f"-I{importlib.resources.files('grpc_tools') / '_proto'}"]
    outputs = [f"--{kind}={HERE}" for kind in ("python_out", "pyi_out", "grpc_python_out")]
    if grpc_tools.protoc.main(["protoc", *includes, *outputs, *FILES]) != 0:
        raise SystemExit("protoc failed")


# Before setuptools looks for the packages, of which the generated one must exist.
make_stubs()
setup()
