# Two commands matter: `make demo` (build, serve a small trained model, find a hidden key in a long document) and
# `make test` (everything). Each target installs what it needs on a fresh Debian 12.
BUILD ?= build
JOBS ?= $(shell nproc)
SUDO := $(if $(filter 0,$(shell id -u)),,sudo)
CTEST := ctest --output-on-failure --no-tests=error

PACKAGES := g++ cmake ninja-build ccache pkg-config git python3 python3-venv clang-format \
  libgrpc++-dev libgrpc-dev libssl-dev openssl libprotobuf-dev protobuf-compiler protobuf-compiler-grpc libabsl-dev \
  libucx-dev prometheus-cpp-dev libdnnl-dev libsentencepiece-dev libxxhash-dev libspdlog-dev \
  nlohmann-json3-dev libgtest-dev libgmock-dev
# Of the chart's tests, which make networks for pods, of those that watch, and of `make image`.
TEST_PACKAGES := iproute2 prometheus
IMAGE_PACKAGES := buildah debootstrap

PROGRAMS := $(addprefix bin/,salamander salamander-router salamander-prefill-worker salamander-decode-worker \
  libsalamander_sentencepiece.so)

# What `make image` builds: runtime or, with a CUDA toolkit here, runtime-cuda.
IMAGE_TARGET ?= runtime
IMAGE ?= salamander:0.1.0$(IMAGE_TARGET:runtime%=%)
CHART_TEST = GRPC_ENABLE_FORK_SUPPORT=0 tests/chart/isolated.sh $(BUILD)/venv/bin/python -m pytest -q -p no:cacheprovider \
  --bin=$(BUILD)/bin tests/chart

.PHONY: help deps build test demo bench bundle lint sanitize python image chart-programs chart-test chart-golden metrics-page dashboards watch-test train-test load-programs load-test locust-test clean

help:
	@echo "make demo      build, serve the demo model, find a key hidden in a document of over 100,000 tokens"
	@echo "make test      build and run all tests"
	@echo "make build     build only ($(BUILD)/bin)"
	@echo "make bench     measure this machine and write docs/benchmarks.md"
	@echo "make bundle    programs, GPU tests and benchmarks in one folder for a GPU machine ($(BUILD)/bundle)"
	@echo "make image     the container image $(IMAGE), with buildah, and its pods run from it"
	@echo "make chart-test  the Helm chart: lint, schemas, golden renders, and its pods run on this machine"
	@echo "make watch-test  dashboards, rules and alerts against a real Prometheus under load and faults"
	@echo "make metrics-page  docs/metrics.md from what the programs serve"
	@echo "make train-test  the training code against the oracle; PyTorch in an environment of its own (5 GB)"
	@echo "make load-test  a cluster at 80% and at 200% of what this machine can take, for 15 minutes ($(BUILD)/load.png)"
	@echo "make locust-test  the same cluster under locust, for a few seconds"
	@echo "make lint      format, include rules, header checks"
	@echo "make sanitize  unit and in-process cluster tests under ASan+UBSan and TSan"

# Installs only what is missing of $(1), so that a machine that has everything needs no network.
define install
	@missing=$$(for p in $(1); do dpkg-query -W -f='$${Status}' $$p 2>/dev/null | grep -q 'ok installed' || echo $$p; done); \
	if [ -n "$$missing" ]; then echo "installing:" $$missing; \
	  $(SUDO) apt-get update -qq && DEBIAN_FRONTEND=noninteractive $(SUDO) apt-get install -y -qq --no-install-recommends $$missing; fi
endef

deps:
	$(call install,$(PACKAGES))

$(BUILD)/build.ninja: | deps
	cmake -S . -B $(BUILD) -G Ninja $(CMAKE_FLAGS)

build: deps $(BUILD)/build.ninja
	ninja -C $(BUILD) -j $(JOBS)

# The Python client with its test tools, in a virtual environment of its own.
python: deps
	tools/python_env.sh $(BUILD)/venv

test: build python lint
	$(call install,$(TEST_PACKAGES))
	$(CTEST) --test-dir $(BUILD) -j $(JOBS)

# Builds the programs only: the tests are most of a first build.
demo: deps $(BUILD)/build.ninja
	ninja -C $(BUILD) -j $(JOBS) $(PROGRAMS)
	python3 tools/demo/demo.py --bin $(BUILD)/bin

# Everything that the images and the chart's tests run.
chart-programs: deps $(BUILD)/build.ninja
	ninja -C $(BUILD) -j $(JOBS) $(PROGRAMS) bin/salamander-worker $(if $(filter runtime-cuda,$(IMAGE_TARGET)),bin/libsalamander_cuda.so)

chart-test: chart-programs python
	$(call install,$(TEST_PACKAGES))
	$(CHART_TEST)

# After a change of the chart: look at the difference before you commit it.
chart-golden: python
	$(BUILD)/venv/bin/python -m pytest -q -p no:cacheprovider tests/chart/test_render.py --update

# Rules and dashboards against a real Prometheus that watches a cluster under load and faults.
watch-test: chart-programs python
	$(call install,$(TEST_PACKAGES))
	ninja -C $(BUILD) -j $(JOBS) bin/salamander-faulty-cluster
	$(BUILD)/venv/bin/python -m pytest -q -p no:cacheprovider --bin=$(BUILD)/bin tests/watch

# After a change of tools/metrics/dashboards.py.
dashboards:
	python3 tools/metrics/dashboards.py

# After a change of a metric.
metrics-page: chart-programs python
	$(BUILD)/venv/bin/python tools/metrics/page.py --bin=$(BUILD)/bin

# Not a part of `test`: PyTorch's packages are 5 GB.
train-test: deps
	python3 -m venv $(BUILD)/train-venv
	$(BUILD)/train-venv/bin/pip install -q --disable-pip-version-check -r tools/train/requirements.txt pytest
	$(BUILD)/train-venv/bin/python -m pytest -q -p no:cacheprovider tests/train

image: chart-programs python
	$(call install,$(IMAGE_PACKAGES) $(TEST_PACKAGES))
	$(SUDO) tools/image.sh $(BUILD) $(IMAGE_TARGET) $(IMAGE)
	$(SUDO) tests/chart/image_test.sh $(BUILD) $(IMAGE)

load-programs: deps $(BUILD)/build.ninja python
	ninja -C $(BUILD) -j $(JOBS) $(PROGRAMS)
	$(BUILD)/venv/bin/pip install -q --disable-pip-version-check -r tests/load/requirements.txt

# Needs the machine for itself.
load-test: load-programs
	python3 tests/load/load_test.py --bin=$(BUILD)/bin --output=$(BUILD)/load.json
	$(BUILD)/venv/bin/python tests/load/picture.py $(BUILD)/load.json $(BUILD)/load.png

locust-test: load-programs
	python3 tests/load/locust_test.py --bin=$(BUILD)/bin --locust=$(BUILD)/venv/bin/locust

bench: build
	python3 tools/bench/bench.py --bin $(BUILD)/bin --out docs/benchmarks.md

bundle: build
	tools/bundle.sh $(BUILD) $(BUILD)/bundle

lint: deps
	tools/lint.sh

# A test asks for more memory than there is: that must fail as it does without a sanitizer.
sanitize: deps
	cmake -S . -B $(BUILD)-asan -G Ninja -DSALAMANDER_SANITIZER=address,undefined
	ninja -C $(BUILD)-asan -j $(JOBS) single_process_tests
	ASAN_OPTIONS=allocator_may_return_null=1 UBSAN_OPTIONS=halt_on_error=1:print_stacktrace=1 $(CTEST) --test-dir $(BUILD)-asan -L 'unit|inprocess' -j $(JOBS)
	cmake -S . -B $(BUILD)-tsan -G Ninja -DSALAMANDER_SANITIZER=thread
	ninja -C $(BUILD)-tsan -j $(JOBS) single_process_tests
	TSAN_OPTIONS=suppressions=$(CURDIR)/tests/tsan.supp:ignore_noninstrumented_modules=1:halt_on_error=1:allocator_may_return_null=1 $(CTEST) --test-dir $(BUILD)-tsan -L 'unit|inprocess' -j $(JOBS)

clean:
	rm -rf $(BUILD) $(BUILD)-asan $(BUILD)-tsan
