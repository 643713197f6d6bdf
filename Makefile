# Two commands a newcomer types: `make demo` and `make test`. Each installs what it needs, once.
PYTHON ?= python3
BIN := .venv/bin
INSTALLED := .venv/.installed

.PHONY: setup demo test test-examples test-slow test-gpu check format bench house docs file-map clean

$(INSTALLED): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "fairway needs Python 3.11 or newer; choose one with make PYTHON=python3.12")'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $@

setup: $(INSTALLED)  ## everything a newcomer needs, once

demo: setup  ## text to a proven score, in minutes, on two cores
	$(BIN)/fairway demo

test: setup  ## what must stay true
	$(BIN)/pytest -q -n 2 -m "not slow and not gpu"

test-examples: setup  ## what a newcomer does: a first day from the built wheel, and the notebook
	$(BIN)/pytest -q -n 2 -m examples tests/test_examples.py

test-slow: setup  ## what takes longer than five seconds to show
	$(BIN)/pytest -q -m "slow and not gpu"

test-gpu: setup  ## kernels against their plain twins; needs one GPU
	$(BIN)/pytest -q -m gpu

check: setup  ## exactly what CI runs; the cheapest step first
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/pyright
	$(MAKE) --no-print-directory test
	$(MAKE) --no-print-directory test-examples

format: setup  ## let the tools decide about commas
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: setup  ## every benchmark briefly, as one table: numbers to look at, which gate nothing
	$(BIN)/python benchmarks/all.py

house: setup  ## the state of the source tree in numbers; BASELINE=REV counts a revision beside it
	$(BIN)/python benchmarks/house.py $(if $(BASELINE),--baseline $(BASELINE))

docs: setup  ## the site, into build/site; a warning is an error
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[docs]'
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

file-map: setup  ## renew the file map at the end of docs/design.md
	$(BIN)/python docs/file_map.py

clean:
	rm -rf .venv runs
