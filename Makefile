# Everything a fresh clone needs: each target sets up what it uses.
PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.installed
export HF_HUB_OFFLINE := 1

.PHONY: demo test test-triton check slow bench docs clean

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --constraint constraints.txt torch
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[train,tensorboard,hf,lora,prune,quantize,ray,test,docs]"
	touch $(STAMP)

demo: $(STAMP)  ## the main job on scikit-learn's digits: result table and report
	$(BIN)/understudy demo

# A process per core, each on one thread: the tests are many and small.
test: check  ## every check
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n logical --maxprocesses 8 --dist loadfile --durations 40 --durations-min 10

check: $(STAMP)  ## the static part
	$(BIN)/ruff format --check src tests benchmarks
	$(BIN)/ruff check src tests benchmarks
	$(BIN)/mypy
	$(BIN)/lint-imports
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

# In a folder of its own: PyTorch takes other ways where it finds Triton, and all else is tested without.
TRITON := .triton
$(TRITON)/.installed: constraints.txt | $(STAMP)
	rm -rf $(TRITON)
	$(BIN)/python -m pip install --quiet --no-deps --constraint constraints.txt --target $(TRITON) triton
	touch $@

test-triton: $(TRITON)/.installed  ## the kernels of vocabulary losses: compiled for GPUs, and run in Triton's interpreter
	PYTHONPATH=$(TRITON) $(BIN)/python -m pytest tests/losses/test_triton_compiles.py
	PYTHONPATH=$(TRITON) TRITON_INTERPRET=1 OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n logical --maxprocesses 8 tests/losses/test_vocabulary_triton.py

slow: $(STAMP)  ## the long tests: real data, end to end
	$(BIN)/python -m pytest -m slow

bench: $(STAMP)  ## make bench NAME=engine_overhead [FULL=1]
	$(BIN)/python benchmarks/$(NAME).py

docs: $(STAMP)
	$(BIN)/mkdocs serve

clean:
	rm -rf .venv .triton site runs
