# Two commands do everything on a fresh machine with Python and make: `make demo` and `make test`.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PHOTO ?= examples/coffee.png

.DEFAULT_GOAL := help
.PHONY: help demo test test-gpu lint warmup schema bench clean

help:
	@echo "make demo    install into .venv and turn $(PHOTO) into a 3D asset in out/"
	@echo "make test    install into .venv and run the tests"
	@echo "make lint    check style"
	@echo "make bench   run the benchmarks and print their tables"
	@echo "make clean   remove .venv, out/ and caches"

# A stamp per set of extras: installed again only when the project's requirements change.
$(VENV)/.installed: pyproject.toml requirements.txt
	@echo "==> installing onelook into $(VENV)"
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(0 if (3, 11) <= v <= (3, 13) else "Python 3.11, 3.12 or 3.13 is needed, this is %d.%d; name another with: make PYTHON=python3.12" % v)'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --disable-pip-version-check -c requirements.txt -e .
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	@echo "==> installing the test tools"
	@$(BIN)/python -m pip install --disable-pip-version-check -c requirements.txt -e '.[dev]'
	@touch $@

demo: $(VENV)/.installed
	@echo "==> $(PHOTO)"
	@$(BIN)/onelook $(PHOTO) -o out/ --return_no_background
	@echo "==> open the .glb in any 3D viewer and the .mp4 in any player"

test: $(VENV)/.installed-dev node_modules
	@PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python -m pytest

test-gpu: $(VENV)/.installed-dev
	@PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python -m pytest -m gpu

# The Khronos validator and a web viewer; without npm (and Chromium) the tests that ask them are skipped.
node_modules: package.json
	@if command -v npm >/dev/null; then echo "==> installing the glTF validator and a web viewer" && npm install --silent --no-audit --no-fund --no-package-lock || true; fi
	@mkdir -p $@ && touch $@

lint: $(VENV)/.installed-dev
	@$(BIN)/ruff check . && $(BIN)/ruff format --check .

# What Cog's server checks inputs against; a test tells when predict.py and it differ.
schema: $(VENV)/.installed
	@$(BIN)/python tests/helpers/cog_schema.py

warmup: $(VENV)/.installed
	@$(BIN)/onelook warmup

bench: $(VENV)/.installed-dev
	@$(BIN)/python benchmarks/relief.py

clean:
	rm -rf $(VENV) out node_modules .pytest_cache .ruff_cache .hypothesis
