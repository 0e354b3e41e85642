# Everything a fresh clone needs: each target sets up what it uses.
PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.installed
export HF_HUB_OFFLINE := 1

.PHONY: demo test check slow bench docs clean

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --constraint constraints.txt torch
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[train,tensorboard,hf,lora,prune,quantize,ray,test,docs]"
	touch $(STAMP)

demo: $(STAMP)  ## the main job on scikit-learn's digits: result table and report
	$(BIN)/understudy demo

# A process per core, each on one thread: the tests are many and small.
test: check  ## every check
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n logical --maxprocesses 8 --dist loadfile

check: $(STAMP)  ## the static part
	$(BIN)/ruff format --check src tests benchmarks
	$(BIN)/ruff check src tests benchmarks
	$(BIN)/mypy
	$(BIN)/lint-imports
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

slow: $(STAMP)  ## the long tests: real data, end to end
	$(BIN)/python -m pytest -m slow

bench: $(STAMP)  ## make bench NAME=engine_overhead [FULL=1]
	$(BIN)/python benchmarks/$(NAME).py

docs: $(STAMP)
	$(BIN)/mkdocs serve

clean:
	rm -rf .venv site runs
