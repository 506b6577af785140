# Everything runs in .venv, which the first target that needs it makes.

PYTHON ?= python3
BIN := .venv/bin

.PHONY: search ablate test test-long lint constraints clean

search: .venv/ready
	$(BIN)/harness search

# the phase ladder and a Shapley study of one step of it, on the synthetic desert
ablate: .venv/ready
	$(BIN)/harness ablate ablations/ignitia.yaml --scale smoke
	$(BIN)/harness ablate ablations/ignitia_phase2_shapley.yaml --scale smoke

test: .venv/ready
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --dist loadfile --no-loadscope-reorder

# workers killed twenty times while they train, drivers on Ray interrupted and killed, a node lost: a quarter of an hour
test-long: .venv/ready
	HARNESS_LONG_TESTS=1 OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests/run/test_worker_deaths.py tests/run/test_interrupt.py tests/chaos

lint: .venv/ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

# versions that go together on every Python from 3.10, names and versions only: those that are pinned stay
constraints: .venv/ready
	$(BIN)/uv pip compile -q --universal --python-version 3.10 --extra dev --no-header --no-annotate \
	 --no-emit-index-url --no-emit-find-links -o constraints.txt pyproject.toml

clean:
	rm -rf .venv

# pip only to get uv; uv installs the rest in seconds
.venv/ready: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install -q uv
	$(BIN)/uv pip install -q --python $(BIN)/python -c constraints.txt -e '.[dev]'
	touch .venv/ready
