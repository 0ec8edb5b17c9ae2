# Needs Python >= 3.10, make and a package registry; everything else is installed into .venv.
PYTHON ?= python3
BIN := .venv/bin
LOCKED := .venv/.locked
READY := .venv/.ready
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check

.PHONY: train test lint format lock proto clean

train: $(READY)
	$(BIN)/python -m learner.main $(ARGS)

test: lint
	$(BIN)/python -m pytest $(ARGS)

lint: $(READY)
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/pyright
	$(BIN)/lint-imports

format: $(READY)
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

# Each mark is made last, so a set-up that broke off is begun anew.
$(READY): $(LOCKED) pyproject.toml
	$(INSTALL) --no-deps --no-build-isolation --editable .
	@touch $@

$(LOCKED): requirements.lock
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || \
	  { echo "error: $(PYTHON) is missing or older than Python 3.10; use make PYTHON=/path/to/a/newer/python" >&2; exit 2; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || \
	  { echo "error: $(PYTHON) has no venv; install it (Debian: apt install python3-venv)" >&2; exit 2; }
	rm -rf .venv
	$(PYTHON) -m venv .venv
	$(INSTALL) --requirement requirements.lock
	@touch $@

# Exact versions for all supported Pythons; those in the lock stay unless they must change. The CUDA packages that torch
# names for Linux are left out: whoever installs a CUDA build of torch gets them with it, and a CPU build needs none.
lock: $(READY)
	cp requirements.lock .venv/lock
	$(BIN)/uv pip compile --quiet --universal --fork-strategy requires-python --python-version 3.10 \
	  --all-extras --no-annotate --no-header --output-file .venv/lock pyproject.toml
	grep -vE '^(nvidia-|cuda-|triton)' .venv/lock > .venv/lock.plain
	cmp -s .venv/lock.plain requirements.lock || cp .venv/lock.plain requirements.lock

# By the oldest generator that its runtime bounds in pyproject.toml allow.
proto: $(READY)
	$(BIN)/uv run --isolated --no-project --with grpcio-tools==1.74.0 python -m grpc_tools.protoc -I . \
	  --python_out=. --pyi_out=. --grpc_python_out=. rewards/service/reward.proto

clean:
	rm -rf .venv build dist *.egg-info
