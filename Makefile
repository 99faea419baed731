# The first two commands are `make demo` and `make test`; both need only Python 3, pip and make. `make cluster` needs nginx
# (or HAProxy) and Redis too.
PYTHON ?= python3
VENV ?= .venv

RUN = $(VENV)/bin/python -m
NATIVE = $(wildcard tornado_ws/*/*.pyx tornado_ws/*/*.h tornado_ws/*/native/*)
comma = ,
CHECKED = $(wildcard _tornado_ws_finder.py tornado_ws tests examples benchmarks fuzz release soak docs)

.PHONY: demo dist cluster test test-fast lint docs docs-check docs-links autobahn bench fuzz soak sanitize \
    sanitize-in-ci clean faults

# Where to listen, for `make demo` and `make cluster`; 0 is any that is free, and nothing is the program's default.
PORT =

demo: $(VENV)/installed
	$(VENV)/bin/python examples/demo/demo.py $(addprefix --port ,$(PORT))

# A chat over two processes, with Redis between them and a proxy in front.
PROXY = nginx
cluster: $(VENV)/installed-with-redis
	$(VENV)/bin/python examples/cluster/cluster.py $(addprefix --port ,$(PORT)) --proxy $(PROXY)

# Once with each engine: a machine has one of them, by its compiler. What takes both in one run, or has nothing to do
# with either, is left out of one.
BOTH = tests/engine tests/deflate tests/cli tests/docs tests/test_release.py tests/test_workflows.py
# Once more with `tornado_ws.HTTPServer` in the place of Tornado's.
WITH_HTTP_SERVER = tests/server tests/connection tests/test_tornado_suite.py
# Those of a group share what takes long to make.
PARALLEL = -n auto --dist loadgroup
test: lint docs-check
	$(RUN) coverage erase
	TORNADO_WS_ENGINE=python $(RUN) pytest $(PARALLEL) $(addprefix --ignore=,$(BOTH)) --cov --cov-report= --cov-fail-under=0
	TESTED_HTTP_SERVER=tornado_ws $(RUN) pytest $(PARALLEL) $(WITH_HTTP_SERVER) --cov --cov-append --cov-report= --cov-fail-under=0
	$(RUN) pytest $(PARALLEL) --cov --cov-append --cov-report=term-missing:skip-covered

# While something is written: one case of each test of the engine and of connections, with the engine that there is.
# Not those that measure memory, or start programs.
FAST = -n auto --cases 1 --hypothesis-profile=fast
test-fast: $(VENV)/tested-with
	$(RUN) pytest -q $(FAST) -k "not tornado_ws.engine.pure" $(addprefix tests/,engine deflate connection client server transport)

# Pyright as a wheel that has all of it: the package pyright fetches it from npm at its first run.
lint: $(VENV)/tested-with
	$(RUN) ruff check $(CHECKED)
	$(RUN) ruff format --check $(CHECKED)
	$(RUN) mypy $(CHECKED)
	$(RUN) basedpyright
	$(VENV)/bin/lint-imports --no-logo setup.cfg

SITE = reports/docs
SPHINX = $(RUN) sphinx --quiet --nitpicky
docs: $(VENV)/tested-with
	$(SPHINX) docs $(SITE)
	@echo "file://$(CURDIR)/$(SITE)/index.html"
	$(RUN) webbrowser "file://$(CURDIR)/$(SITE)/index.html"

# All of it anew: a page that did not change has no warnings. Links within the site and the repository are checked;
# `docs-links` asks the servers of the others, for which CI has no network.
docs-check: $(VENV)/tested-with
	$(SPHINX) --fail-on-warning --fresh-env docs $(SITE)
	grep --quiet "^- \[A chat\](_sources/tutorials/chat.md): A page" $(SITE)/llms.txt
docs-links: $(VENV)/tested-with
	$(SPHINX) --builder linkcheck docs reports/links

# What is released, in dist/, with the wheel of this platform.
dist: $(VENV)/released-with
	$(RUN) release --native

autobahn: $(VENV)/tested-with
	$(RUN) tests.autobahn.run --cases all --reports reports/autobahn --summary docs/autobahn.md

# All targets from the corpus on; what fails becomes a file of it.
MINUTES = 5
fuzz: $(VENV)/fuzzed-with
	$(RUN) fuzz --minutes $(MINUTES)

# Load with numbered messages, and connections that end in every way; longer than MINUTES if those are not enough.
soak: $(VENV)/tested-with
	$(RUN) soak --minutes $(MINUTES)

# Every system call of every scenario fails in turn, over both engines.
SEED = 1
faults: $(VENV)/tested-with
	TORNADO_WS_ENGINE=python $(RUN) tests.faults --seed $(SEED)
	TORNADO_WS_ENGINE=native $(RUN) tests.faults --seed $(SEED)

bench: $(VENV)/benched-with
	$(RUN) benchmarks

# The tests that use the native engine, failing system calls and the corpus of the fuzzer among them, over one that
# checks each access to memory and each arithmetic operation. Left out are those of the pure engine, and those that
# start other programs, which do not use it.
SANITIZED = reports/sanitized
SANITIZED_TESTS = tests
NOT_SANITIZED = $(addprefix $(CURDIR)/tests/,against_tornado browser cli compat docs test_authentication_example.py \
    test_autobahn.py test_benchmark_load.py test_benchmarks.py test_conformance.py test_example_ports.py \
    test_feed_example.py test_metrics_example.py test_names.py test_peers.py test_proxies.py test_release.py \
    test_shutdown_example.py test_suites.py test_tornado_suite.py test_tracing_example.py test_workflows.py \
    testing/test_example.py testing/test_plugin.py)
# All of them take too long for CI.
SANITIZED_IN_CI = tests/test_fuzz_corpus.py $(addprefix tests/transport/test_,large_messages.py tls.py) \
    tests/deflate/test_streams.py $(addprefix tests/engine/test_,bombs.py final_blocks.py frames.py deliver.py \
    limits.py messages.py parts.py read_ahead.py reentrancy.py) tests/server/test_task.py \
    tests/connection/test_gathering.py
sanitize-in-ci: SANITIZED_TESTS = $(SANITIZED_IN_CI)
sanitize-in-ci: sanitize
sanitize: $(VENV)/tested-with
	rm -rf $(SANITIZED)
	mkdir -p $(SANITIZED)
	CFLAGS="-g -fsanitize=address,undefined -fno-sanitize-recover=undefined -fno-omit-frame-pointer" \
	    $(RUN) pip install --quiet --no-deps --target $(SANITIZED) .
	# Or the next build would take over what is checked and did not change.
	rm -rf build
	# The programs that the tests start find it first, too, wherever they run (from Python 3.11 on).
	cd $(SANITIZED) && export PYTHONPATH="$(CURDIR)/$(SANITIZED):$(CURDIR)" PYTHONSAFEPATH=1 && \
	    export PYTHONMALLOC=malloc ASAN_OPTIONS=detect_leaks=0:allocator_may_return_null=1 \
	        LD_PRELOAD="$$(gcc -print-file-name=libasan.so) $$(gcc -print-file-name=libubsan.so)" && \
	    $(CURDIR)/$(RUN) pytest $(PARALLEL) -p no:cacheprovider --import-mode=append -k "not tornado_ws.engine.pure" \
	    $(addprefix --ignore=,$(NOT_SANITIZED)) $(addprefix $(CURDIR)/,$(SANITIZED_TESTS))

# Made anew, not updated: what an older setup.cfg had asked for would hide what this one forgot.
# Debian's python3 has venv without ensurepip; its pip can fill the empty environment from outside.
$(VENV)/made: setup.cfg setup.py pyproject.toml
	rm -rf $(VENV)
	$(PYTHON) -m venv $(VENV) || \
	    { $(PYTHON) -m venv --clear --without-pip $(VENV) && $(PYTHON) -m pip --python $(VENV) install pip; }
	touch $@

# Without a compiler the pure engine is what there is, and pip has said so.
INSTALL = @echo "Installing; where the native engine is not built or was changed it is compiled, which takes a minute." && \
    { $(RUN) pip install --quiet --editable $(1) || TORNADO_WS_PURE=1 $(RUN) pip install --quiet --editable $(1); } && \
    $(RUN) tornado_ws --version && touch $@

$(VENV)/installed: $(VENV)/made $(NATIVE)
	$(call INSTALL,.)

$(VENV)/installed-with-redis: $(VENV)/made $(NATIVE)
	$(call INSTALL,'.[redis]')

$(VENV)/tested-with: $(VENV)/made $(NATIVE)
	$(call INSTALL,'.[test$(comma)docs]')

$(VENV)/fuzzed-with: $(VENV)/made $(NATIVE)
	$(call INSTALL,'.[test$(comma)fuzz]')

$(VENV)/released-with: $(VENV)/made $(NATIVE)
	$(call INSTALL,'.[release$(comma)test]')

$(VENV)/benched-with: $(VENV)/made $(NATIVE)
	$(call INSTALL,'.[bench]')

clean:
	rm -rf $(VENV) tornado_ws/*/_*.c tornado_ws/*/*.so .tox build dist *.egg-info reports htmlcov .coverage .coverage.* \
	    .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
