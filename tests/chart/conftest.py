import pathlib

import pytest
from asking import MODEL
from chart import manifests
from pods import Node


def pytest_addoption(parser):
    parser.addoption("--bin", default="build/bin", help="folder of the built programs")
    parser.addoption("--image-root", default="", help="root of an image, whose programs are run instead")
    parser.addoption("--update", action="store_true", help="write golden files instead of comparing with them")


@pytest.fixture(scope="session")
def bin_folder(request):
    return pathlib.Path(request.config.getoption("--bin")).resolve()


@pytest.fixture(scope="session")
def boot(request, bin_folder, tmp_path_factory):
    """Makes a node for the pods of some values, with the demo model in their hostPath; one node at a time."""
    root = request.config.getoption("--image-root")

    def make(values):
        return Node(tmp_path_factory.mktemp("node"), manifests(values), bin_folder, pathlib.Path(root) if root else None,
                    {values["model"]["hostPath"]: MODEL})
    return make
