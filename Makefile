# The first two commands are `make demo` and `make test`; both need only Python 3, pip and make.
PYTHON ?= python3
VENV ?= .venv

RUN = $(VENV)/bin/python -m
NATIVE = $(wildcard tornado_ws/*.pyx tornado_ws/*.h)
CHECKED = $(wildcard tornado_ws tests examples benchmarks)

.PHONY: demo test lint autobahn bench sanitize clean

demo: $(VENV)/installed
	$(VENV)/bin/python examples/demo/demo.py

# Once with each engine: a machine has one of them, by its compiler. tests/engine takes both in one run.
test: lint
	$(RUN) coverage erase
	TORNADO_WS_ENGINE=python $(RUN) pytest --ignore tests/engine --cov --cov-report= --cov-fail-under=0
	$(RUN) pytest --cov --cov-append --cov-report=term-missing:skip-covered

lint: $(VENV)/tested-with
	$(RUN) ruff check $(CHECKED)
	$(RUN) ruff format --check $(CHECKED)
	$(RUN) mypy $(CHECKED)

autobahn: $(VENV)/tested-with
	$(RUN) tests.autobahn.run --cases all --reports reports/autobahn --summary docs/autobahn.md

bench: $(VENV)/benched-with
	$(RUN) benchmarks

# The tests of the engine, and those that move large messages and TLS records through it, over a native one that checks
# each access to memory and each arithmetic operation.
SANITIZED = reports/sanitized
SANITIZED_TESTS = tests/engine tests/connection/test_large_messages.py tests/connection/test_tls.py
sanitize: $(VENV)/tested-with
	rm -rf $(SANITIZED)
	mkdir -p $(SANITIZED)
	CFLAGS="-g -fsanitize=address,undefined -fno-sanitize-recover=undefined -fno-omit-frame-pointer" \
	    $(RUN) pip install --quiet --no-deps --target $(SANITIZED) .
	# Or the next build would take over what is checked and did not change.
	rm -rf build
	cd $(SANITIZED) && LD_PRELOAD="$$(gcc -print-file-name=libasan.so) $$(gcc -print-file-name=libubsan.so)" \
	    ASAN_OPTIONS=detect_leaks=0 PYTHONMALLOC=malloc \
	    $(CURDIR)/$(RUN) pytest -p no:cacheprovider --import-mode=append $(addprefix $(CURDIR)/,$(SANITIZED_TESTS))

# Made anew, not updated: what an older setup.cfg had asked for would hide what this one forgot.
# Debian's python3 has venv without ensurepip; its pip can fill the empty environment from outside.
$(VENV)/made: setup.cfg setup.py pyproject.toml
	rm -rf $(VENV)
	$(PYTHON) -m venv $(VENV) || \
	    { $(PYTHON) -m venv --clear --without-pip $(VENV) && $(PYTHON) -m pip --python $(VENV) install pip; }
	touch $@

$(VENV)/installed: $(VENV)/made $(NATIVE)
	$(RUN) pip install --quiet --editable .
	touch $@

$(VENV)/tested-with: $(VENV)/made $(NATIVE)
	$(RUN) pip install --quiet --editable '.[test]'
	touch $@

$(VENV)/benched-with: $(VENV)/made $(NATIVE)
	$(RUN) pip install --quiet --editable '.[bench]'
	touch $@

clean:
	rm -rf $(VENV) tornado_ws/_*.c tornado_ws/*.so .tox build dist *.egg-info reports htmlcov .coverage .coverage.* \
	    .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
