# Everything that `make` can do here; CONTRIBUTING.md says when to use what.
PY = build/venv/bin/python
PYTEST = HYPOTHESIS_STORAGE_DIRECTORY=build/hypothesis $(PY) -m pytest
DESTDIR =
LAB =
TABLES =

.NOTPARALLEL:
.PHONY: demo lab test setup venv build install install-drop-in uninstall
.PHONY: test-unit test-proofs test-integration bench conformance lint

demo: setup build  ## the main job, end to end, in namespaces of its own
	@$(PY) -m integration.demo

lab: setup build  ## tell a lab's story, LAB=NN-name; with LAB_KEEP=1 the lab stays up to play in
	@$(PY) -m integration.labs.run $(LAB)

test: setup build lint test-unit test-proofs conformance test-integration  ## every test

setup:  ## get what is missing
	@packaging/setup.sh

venv:
	@packaging/setup.sh venv

build: setup  ## the bundle dist/cni-ipam
	@$(PY) packaging/build.py

install: build  ## put the bundle in place below DESTDIR
	@packaging/install.sh install "$(DESTDIR)"

install-drop-in: build  ## the same, and replace Calico's calico-ipam
	@packaging/install.sh install-drop-in "$(DESTDIR)"

uninstall:  ## take everything away again, but no data
	@packaging/install.sh uninstall "$(DESTDIR)"

test-unit: venv  ## no root, no network
	$(PYTEST) tests/core --cov=cni_ipam/core --cov-branch --cov-report=
	$(PY) -m coverage report --include='cni_ipam/core/*' --fail-under=95
	$(PYTEST) tests --ignore=tests/core -m 'not proof' -n auto

test-proofs: venv  ## model test, interleavings, mutants; no root, no network
	$(PYTEST) tests -m proof -n auto

test-integration: setup build  ## the bundle, the kernel, real servers; as root
	$(PYTEST) integration --timeout=600 -n 2 --no-loadscope-reorder

bench: setup build  ## against host-local, and PEER_CALICO_IPAM=/path if set
	@$(PY) -m bench.bench

conformance: venv  ## TABLES=DIR, else the public tables
	@$(PY) -m tests.conformance $(TABLES)

lint: setup  ## ruff, mypy, shellcheck
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy
	shellcheck packaging/*.sh integration/cluster/*.sh integration/kind/*.sh integration/containerlab/*.sh integration/labs/*/*.sh
