# `make demo` shows the product, `make test` proves it; both set up what they need.

PYTHON ?= python3
PROMPT ?= Once upon a time
SEED ?= 1
export PROMPT

RUN := .venv/bin
TEST := .venv-test/bin
PARITY := .venv-parity/bin
# What hangs (a browser that died, a GPU that never answers) says where, and ends the run.
# A test that failed runs again, alone and last: if it passes then, it is named as flaky.
PYTEST := $(TEST)/python -m pytest -p tests.flaky --durations=15 \
	-o faulthandler_timeout=1500 -o faulthandler_exit_on_timeout=true
SOURCES := pyproject.toml README.md LICENSE \
	$(shell find gpt2_wgpu shaders models -type f -not -name '*.pyc' 2>/dev/null)

.DEFAULT_GOAL := help
.PHONY: help coverage demo site npm test test-fast test-fast-plain test-fast-engine test-plain \
	test-engine test-browser test-kernels test-library parity mutants fuzz soak gpu lint format clean

help: ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-9s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
	@echo 'PROMPT="The king" make demo    another beginning'
	@echo 'make PYTHON=python3.12 test    another Python'

demo: .venv/installed ## install the package and stream a text from the embedded model
	@$(RUN)/python scripts/bootstrap.py adapter
	@$(RUN)/gpt2-wgpu generate -n 200 -- "$$PROMPT"

site: .venv/installed ## build the static site for browsers into dist/
	@$(RUN)/python scripts/build_site.py

npm: .venv/installed ## build the npm package into build/npm/
	@$(RUN)/python scripts/build_npm.py

test-fast: .venv-test/installed ## run a selection of the tests within a minute: before each push
	@$(MAKE) --no-print-directory -k -j2 test-fast-plain test-fast-engine

# Operations on f32 with the kernels of this adapter, one text, and one page with a fake library.
FAST := tests/gpu/tensors/test_ops_*.py tests/gpu/tensors/test_tensor.py tests/memory/test_words.py \
	"tests/models/test_recorded_texts.py::test_texts_are_those_that_were_recorded[float32-greedy]" \
	tests/browser/page/test_page_writing.py::test_the_same_seed_gives_the_same_text

test-fast-plain:
	$(NO_GPU) $(TEST)/python -m pytest -q -m 'not slow' $(PLAIN)

test-fast-engine:
	$(TEST)/python -m pytest -q -m 'not slow' -k 'not [gpu' $(FAST)

test: .venv-test/installed ## check style and types, and run every test
	@$(TEST)/python scripts/bootstrap.py adapter
	@$(TEST)/python scripts/bootstrap.py browser
	@rm -f build/flaky.txt
	@$(MAKE) --no-print-directory -k -j3 \
		test-browser test-engine test-kernels test-library test-plain lint; \
		status=$$?; cat build/flaky.txt 2>/dev/null; exit $$status

# Three at a time on two cores, since each waits half of the time; the short ones come last.
# The engine's own tests in Chromium; the JavaScript library; the page and what else has a browser.
KERNELS := tests/browser/test_kernels.py tests/browser/test_same_tests.py
LIBRARY := tests/browser/library
# What needs no GPU runs where none can be found.
PLAIN := tests/text tests/weights tests/samplers tests/webgpu tests/cli/test_arguments.py \
	$(wildcard tests/test_*.py)
NO_GPU := VK_DRIVER_FILES=/nonexistent VK_ICD_FILENAMES=/nonexistent

test-plain:
	$(NO_GPU) $(PYTEST) $(PLAIN)

test-engine:
	$(PYTEST) tests --ignore tests/browser $(PLAIN:%=--ignore=%)

test-kernels:
	$(PYTEST) $(KERNELS)

test-browser: LEG = tests/browser $(LIBRARY:%=--ignore=%) $(KERNELS:%=--ignore=%)
test-library: LEG = $(LIBRARY)
test-browser test-library:
	@mkdir -p build
	@$(PYTEST) $(LEG) > build/$@.log 2>&1; status=$$?; cat build/$@.log; exit $$status

# The live_*.py files hold tests that need .venv-parity: pytest collects them only when named.
parity: .venv-parity/installed ## compare with KerasHub, transformers, TransformerLens, lm-eval, Ray
	@$(PARITY)/python scripts/bootstrap.py adapter
	@$(PARITY)/python scripts/bootstrap.py browser
	$(PARITY)/python -m tests.parity.record
	$(PARITY)/python -m pytest tests/parity tests/integrations/test_ray_batches.py \
		$(wildcard tests/*/live_*.py tests/*/*/live_*.py)

coverage: .venv-test/installed ## measure which lines of the package the native tests run
	@$(TEST)/python scripts/bootstrap.py adapter
	@mkdir -p build/coverage && rm -f build/coverage/*
	$(TEST)/python -m coverage run -m pytest tests --ignore tests/browser
	$(TEST)/python -m coverage combine
	$(TEST)/python -m coverage report

mutants: .venv-test/installed ## change the product in 100 places: do the tests notice? (30 minutes)
	$(TEST)/python scripts/mutants.py --sample 100 --seed $(SEED)

fuzz: .venv-test/installed ## read a million mutated files and names
	$(TEST)/python -m tests.fuzz.run --seed $(SEED)

soak: .venv-test/installed ## ten minutes of random requests, compared with undisturbed ones
	$(TEST)/python benchmarks/soak.py --seed $(SEED)

# On a machine without pip: any Python, and wheels beside the checkout (benchmarks/README.md).
gpu: ## measure a real GPU in eight minutes: correctness, speed, verdict
	$(or $(wildcard $(TEST)/python),$(PYTHON)) -m benchmarks.gpu \
		$(if $(wildcard wheels),--wheels wheels) $(GPU)

lint: .venv-test/installed ## check style and types
	$(TEST)/ruff check .
	$(TEST)/ruff format --check .
	$(TEST)/mypy

format: .venv-test/installed ## put the code into the house style
	$(TEST)/ruff check --fix .
	$(TEST)/ruff format .

clean: ## remove environments, caches and build output
	rm -rf .venv .venv-parity .venv-test .hypothesis .mypy_cache .pytest_cache .ruff_cache build dist \
		node_modules lite .cache .jupyterlite.doit.db
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# The package as a user gets it: built, then installed, with what builds the site.
.venv/installed: $(SOURCES)
	@$(PYTHON) scripts/bootstrap.py install .venv '.[site]'
	@touch $@

# An editable install of this checkout, with the tools that check it.
.venv-test/installed: pyproject.toml
	@$(PYTHON) scripts/bootstrap.py install .venv-test -e '.[test]'
	@touch $@

# The references: 4.5 GB.
.venv-parity/installed: pyproject.toml tests/parity/requirements.txt
	@$(PYTHON) scripts/bootstrap.py install .venv-parity -e '.[hub,llm,ray,server,site]' \
		-r tests/parity/requirements.txt
	@touch $@
