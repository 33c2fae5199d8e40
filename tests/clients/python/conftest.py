def pytest_addoption(parser):
    parser.addoption("--bin", default="build/bin", help="folder of the built programs, for test_cluster.py")
    parser.addoption("--target", default="", help="HOST:PORT of a running router, for test_cluster.py")
