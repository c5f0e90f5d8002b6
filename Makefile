# Everything runs in .venv, which is made on the first call: needs Python 3.10 or newer with venv and headers, make and g++.
PYTHON ?= $(shell for p in python3 python3.11 python3.12 python3.13 python3.10; do \
	$$p -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 13))' >/dev/null 2>&1 && echo $$p && break; done)
BIN := .venv/bin
STAMP := .venv/installed
OUT ?= out/demo
JOBS ?= $(shell nproc 2>/dev/null || echo 2)

.PHONY: demo test test-all test-fast lint bench build wheel sanitize emulate install clean
.DEFAULT_GOAL := help

help:
	@echo "make demo       the main job on a simulated street, with real figures and pictures"
	@echo "make test       the test suite without the slow tests; test-all runs everything, test-fast stops at the first failure"
	@echo "make lint       ruff, type checker, import rules"
	@echo "make bench      the tables of BENCHMARKS.md"
	@echo "make build      wheel and source archive in dist/; make wheel: one for other machines (manylinux)"
	@echo "make sanitize   the operators' tests under the address and undefined-behaviour sanitizers"
	@echo "make emulate    the operators' tests on the CUDA bodies, emulated on the CPU"
	@echo "make clean      remove .venv and everything made"

install: $(STAMP)

# The build's own packages first and no build isolation, so that a second build compiles only what has changed. Then one pip command for all
# extras: another one could raise numpy to 2.x with only a warning. Plain pip, not uv: uv takes torch's CUDA build.
$(STAMP): pyproject.toml CMakeLists.txt $(wildcard cuda_ops/src/*/*)
	@test -n "$(PYTHON)" || { echo "no Python 3.10 to 3.13 found; install one, or say make PYTHON=/path/to/python"; exit 2; }
	@command -v "$${CXX:-c++}" >/dev/null || { echo "no C++ compiler found (Debian: apt install g++)"; exit 2; }
	@test -f "$$($(PYTHON) -c 'import sysconfig; print(sysconfig.get_path("include"))')/Python.h" || \
		{ echo "Python's headers are missing (Debian: apt install python3-dev)"; exit 2; }
	@test -x $(BIN)/pip || $(PYTHON) -m venv .venv || { rm -rf .venv; echo "Python's venv is missing (Debian: apt install python3-venv)"; exit 2; }
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet "scikit-build-core>=0.11" "nanobind>=2.4" "cmake>=3.25" "ninja>=1.11"
	$(BIN)/python -m pip install --quiet --no-build-isolation --editable '.[eval,test,dev]'
	@! command -v nvcc >/dev/null || $(BIN)/python -m pip install --quiet nvidia-cuda-cuobjdump  # lists the compiled kernels for a test
	@touch $(STAMP)

demo: $(STAMP)
	@$(BIN)/python tools/demo.py --out $(OUT)

test: $(STAMP)
	$(BIN)/python -m pytest -m "not slow" -n $(JOBS)

test-all: $(STAMP)
	$(BIN)/python -m pytest -n $(JOBS)

test-fast: $(STAMP)
	$(BIN)/python -m pytest -m "not slow and not shared" -n $(JOBS) -x

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/basedpyright
	$(BIN)/lint-imports

bench: $(STAMP)
	$(BIN)/python tools/benchmark.py all

build: $(STAMP)
	$(BIN)/python -m build --no-isolation --outdir dist

# The wheel for other machines: its OpenMP library inside, and the oldest Linux that it runs on in its name.
wheel: $(STAMP)
	rm -rf build/wheel && mkdir -p build/wheel dist
	$(BIN)/python -m build --no-isolation --wheel --outdir build/wheel
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python -m auditwheel repair --wheel-dir dist build/wheel/*.whl

# The operators' tests with every access to memory and every overflow watched. Python's own leaks are not ours to report; libstdc++ is loaded
# early because the sanitizer looks for what throws exceptions when it starts.
SANITIZED = TEST_PRELOAD="$$($${CXX:-g++} -print-file-name=libasan.so) $$($${CXX:-g++} -print-file-name=libstdc++.so.6)" \
	ASAN_OPTIONS=detect_leaks=0 UBSAN_OPTIONS=halt_on_error=1:print_stacktrace=1
sanitize: $(STAMP)
	rm -rf build/sanitize-wheel
	PERCEPTION_SANITIZE=1 PERCEPTION_CUDA=0 $(BIN)/python -m build --no-isolation --wheel --outdir build/sanitize-wheel -Cbuild-dir=build/sanitize
	$(SANITIZED) bash .ci/test-wheel build/sanitize-wheel/*.whl

# The same tests with the CUDA bodies in the place of the CPU's, run by an emulation of CUDA: every kernel is executed without a GPU, its
# threads in many orders, under the same sanitizers. One test is left out: a minute of GEOS, and no kernel that others do not run.
emulate: $(STAMP)
	rm -rf build/emulate-wheel
	PERCEPTION_EMULATE_CUDA=1 PERCEPTION_SANITIZE=1 PERCEPTION_CUDA=0 $(BIN)/python -m build --no-isolation --wheel --outdir build/emulate-wheel -Cbuild-dir=build/emulate
	$(SANITIZED) bash .ci/test-wheel build/emulate-wheel/*.whl -n $(JOBS) -k "not 100_000_random_pairs"

clean:
	rm -rf .venv out dist build *.egg-info .pytest_cache .hypothesis .ruff_cache
	find . -name __pycache__ -not -path './.venv/*' -prune -exec rm -rf {} +
