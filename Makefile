# The whole developer interface; CI calls the same targets.
PYTHON ?= python3
BIN := .venv/bin

.venv/ready: requirements.lock pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --require-hashes -r requirements.lock
	$(BIN)/pip install --quiet --no-deps --no-build-isolation -e .
	touch $@

.PHONY: demo run test lint bench lock tools clean

demo: .venv/ready ## play a Chinese shop's day on a fresh embedded stack, then audit it
	$(BIN)/aftersales demo

run: .venv/ready ## the stack on this machine, kept in ./data, until Ctrl-C
	$(BIN)/aftersales up

test: .venv/ready tools
	$(BIN)/pytest -q -n 2 --dist loadfile

lint: .venv/ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: .venv/ready
	$(BIN)/python -m benchmarks.refund

lock: ## compile requirements.lock anew from pyproject.toml
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header --no-annotate \
	  --no-emit-index-url --no-emit-find-links --extra dev pyproject.toml -o requirements.lock

tools: ## hledger, by which the tests check the journal (Debian; elsewhere install it by hand)
	@command -v hledger >/dev/null || { [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null \
	  && apt-get -qq update && apt-get -qq install -y hledger >/dev/null; } \
	  || echo "hledger is not installed: the journal will not be checked by it"

clean:
	rm -rf .venv data .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis *.egg-info
