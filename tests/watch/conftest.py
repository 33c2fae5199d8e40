import pathlib
import sys

import pytest

# The chart's renders, and processes to watch.
for folder in ("tests/chart", "tools/metrics"):
    sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / folder))


def pytest_addoption(parser):
    parser.addoption("--bin", default="build/bin", help="folder of the built programs")


@pytest.fixture(scope="session")
def bin_folder(request):
    return pathlib.Path(request.config.getoption("--bin")).resolve()
