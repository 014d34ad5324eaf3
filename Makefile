# Everything a fresh machine needs is set up by the target that needs it, and only once:
# stamps in .venv remember what was done. `make help` lists the targets.

PYTHON ?=
CONSTRAINTS := .ci/constraints.txt
BIN := .venv/bin
PIP := PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_INPUT=1 $(BIN)/python -m pip
INSTALL := $(PIP) install -c $(CONSTRAINTS) --build-constraint $(CONSTRAINTS)
NODE_TESTS := tests/sdk/node

.DELETE_ON_ERROR:
.NOTPARALLEL:
.PHONY: help serve test check install format clean bench-gpu

help:  ## say what there is
	@grep -E '^[a-z-]+:.*## ' Makefile | sed -E 's/^([a-z-]+):.*## /\1\t/' | \
	  while IFS="$$(printf '\t')" read -r name text; do printf '  make %-9s %s\n' "$$name" "$$text"; done

serve: .venv/penstock-installed  ## install, then serve policies/dev with the starter model
	@$(BIN)/penstock serve --policy policies/dev

install: .venv/penstock-installed  ## create .venv with the gateway and the GGUF engine

test: .venv/tests-installed redis-server docker-registry nginx postgresql  ## install what the tests need, then run all five checks
	@$(MAKE) --no-print-directory --keep-going format-check lint types imports tests

check: test  ## the same five that CI runs: format, lint, types, imports, tests

format: .venv/tests-installed  ## rewrite the code in the house style
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

# Not .venv's Python: its torch is the one for CPUs. PYTHON= names another.
bench-gpu:  ## kernel tests and a table of engines, with the python3 whose torch sees a GPU
	@PYTHONPATH="$(CURDIR)" $(or $(PYTHON),python3) -m tests.gpu_bench $(BENCH_ARGS)

clean:  ## remove what was installed and built here; the compiled llama.cpp stays in the cache
	rm -rf .venv build dist .pytest_cache .ruff_cache .hypothesis .import_linter_cache .grimp_cache
	rm -rf $(NODE_TESTS)/node_modules
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# Each of the five runs even if one before it failed.
.PHONY: format-check lint types imports tests
format-check:
	@echo "[1/5] format"
	@$(BIN)/ruff format --check .
lint:
	@echo "[2/5] lint"
	@$(BIN)/ruff check .
types:
	@echo "[3/5] types"
	@PYRIGHT_PYTHON_IGNORE_WARNINGS=1 $(BIN)/pyright --pythonpath $(BIN)/python
imports:
	@echo "[4/5] imports"
	@$(BIN)/lint-imports
tests:
	@echo "[5/5] tests"
	@$(BIN)/python -m pytest $(PYTEST_ARGS)

# What the tests start that is not on PyPI: a real Redis for limits that several gateways share,
# a real OCI registry for pulls and pushes.
.PHONY: redis-server docker-registry
redis-server docker-registry:
	@command -v $@ >/dev/null || { \
	  if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	    echo "installing $@, which tests start"; \
	    get="env DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=300 -q"; \
	    $$get install -y $@ || { $$get update && $$get install -y $@; }; \
	  else \
	    echo "tests start a $@: install one (\`apt-get install $@\`)" >&2; \
	    exit 1; \
	  fi; \
	}

# deploy/nginx is tested with a real nginx; Debian keeps it in /usr/sbin.
.PHONY: nginx
nginx:
	@PATH="$$PATH:/usr/sbin:/usr/local/sbin" command -v nginx >/dev/null || { \
	  if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	    echo "installing nginx-light, which the tests of deploy/nginx start"; \
	    get="env DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=300 -q"; \
	    $$get install -y nginx-light || { $$get update && $$get install -y nginx-light; }; \
	  else \
	    echo "the tests of deploy/nginx start an nginx: install one (\`apt-get install nginx-light\`)" >&2; \
	    exit 1; \
	  fi; \
	}

# The ledger is tested on a real PostgreSQL; Debian keeps initdb outside of PATH.
.PHONY: postgresql
postgresql:
	@command -v initdb >/dev/null || ls /usr/lib/postgresql/*/bin/initdb >/dev/null 2>&1 || { \
	  if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	    echo "installing postgresql, of which the ledger's tests start clusters of their own"; \
	    get="env DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=300 -q"; \
	    $$get install -y postgresql || { $$get update && $$get install -y postgresql; }; \
	  else \
	    echo "the ledger's tests start a PostgreSQL: install one (\`apt-get install postgresql\`)" >&2; \
	    exit 1; \
	  fi; \
	}

$(BIN)/python:
	@found=; \
	for candidate in $(PYTHON) python3 python3.14 python3.13 python3.12 python3.11; do \
	  if "$$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then \
	    found=$$candidate; break; \
	  fi; \
	done; \
	if [ -z "$$found" ]; then \
	  echo "Penstock needs Python 3.11 or newer; here is: $$(python3 --version 2>/dev/null || echo no python3)" >&2; \
	  echo "install one (\`apt-get install python3 python3-venv\`) or name it: make PYTHON=/path/to/python3.11" >&2; \
	  exit 1; \
	fi; \
	echo "creating .venv with $$found ($$($$found --version))"; \
	"$$found" -m venv --clear .venv || { \
	  rm -rf .venv; \
	  echo "could not create a virtual environment; on Debian and Ubuntu: \`apt-get install python3-venv\`" >&2; \
	  exit 1; \
	}

# pip 25.3 is the first with --build-constraint, 25.1 the first with --group.
.venv/pip-installed: $(CONSTRAINTS) | $(BIN)/python
	@echo "updating pip"
	@$(PIP) install --quiet --upgrade -c $(CONSTRAINTS) pip
	@touch $@

.venv/penstock-installed: pyproject.toml $(CONSTRAINTS) engines/gguf/build.py engines/gguf/masked_cells.cmake .venv/pip-installed
	@echo "[1/2] llama.cpp, which runs GGUF models"
	@$(BIN)/python engines/gguf/build.py --python $(BIN)/python
	@echo "[2/2] Penstock and what it stands on"
	@$(INSTALL) -e .
	@touch $@

.venv/tests-installed: .venv/penstock-installed $(NODE_TESTS)/package-lock.json
	@command -v npm >/dev/null || { \
	  echo "the tests drive the official OpenAI and Ollama clients for Node, and pyright runs on Node:" >&2; \
	  echo "install Node 20 or newer with npm (\`apt-get install nodejs npm\`)" >&2; \
	  exit 1; \
	}
	@echo "[1/3] what the tests need, from PyPI (torch is the largest)"
	@$(INSTALL) --group test
	@echo "[2/3] the clients for Node"
	@cd $(NODE_TESTS) && npm ci --no-audit --no-fund
	@echo "[3/3] pyright"
	@# The Python package fetches the real pyright at its first run; a registry may hiccup.
	@$(BIN)/pyright --version || { sleep 5; $(BIN)/pyright --version; }
	@touch $@
