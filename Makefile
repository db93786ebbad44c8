# Two commands on a fresh Debian or Ubuntu machine: `make demo` and `make test`. Both install and start what is
# missing, through .ci/prepare; neither changes what is there already.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: help demo test test-images unit lint golden schema imgcheck clean

help:
	@echo "make demo    set up, build the default matrix, train in each image, tag, and run one"
	@echo "make test    set up and run every test, those on a real engine too"
	@echo "make test-images  build and check every cell of the default matrix, and write docs/images.md: hours, 25 GB"
	@echo "make unit    the tests that need neither engine nor network"
	@echo "make lint    ruff, mypy (strict), import-linter"
	@echo "make golden  write the golden Dockerfiles anew"
	@echo "make imgcheck  release the suite that images carry: their keys change"
	@echo "make schema  write docs/matrix.schema.json and the tables of docs/matrix.md anew"

# imgbuild alone, and with what its tests and linters need.
INSTALLED := $(VENV)/.installed
EXTRAS := $(VENV)/.installed-extras

$(INSTALLED): pyproject.toml .ci/prepare
	PYTHON=$(PYTHON) .ci/prepare environment $(VENV)
	@touch $@

$(EXTRAS): pyproject.toml .ci/prepare
	PYTHON=$(PYTHON) .ci/prepare environment $(VENV) test,dev
	@touch $(INSTALLED) $@

demo: $(INSTALLED)
	.ci/prepare engine
	PATH="$(CURDIR)/$(BIN):$$PATH" .ci/demo

test: $(EXTRAS)
	.ci/prepare engine
	.ci/prepare buildx
	.ci/prepare node
	.ci/prepare hpc
	$(BIN)/pytest

# One at a time: an image is removed when it was measured, and the layer cache is pruned where a next one needs room.
test-images: $(EXTRAS)
	.ci/prepare engine
	$(BIN)/python bench/images_table.py

unit: $(EXTRAS)
	$(BIN)/pytest -m "not engine and not gpu and not index"

lint: $(EXTRAS)
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

golden: $(EXTRAS)
	$(BIN)/pytest -q tests/unit/test_golden.py --update-golden

schema: $(INSTALLED)
	$(BIN)/python -m builder.matrix.describe schema > docs/matrix.schema.json
	$(BIN)/python -m builder.matrix.describe docs docs/matrix.md

imgcheck: $(INSTALLED)
	$(BIN)/python -m builder.check.release dockerfiles/files/imgcheck.pyz

clean:
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache .import_linter_cache rendered
