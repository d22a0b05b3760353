# Each target does its own set-up: a fresh Debian 12 with python3 and make is enough (scripts/set-up.sh).
#
#   make test   ruff, mypy, import-linter and all tests; without root the unit tests alone
#   make demo   an image made here runs on the drivers overlay, aufs and vfs; needs root
#   make lint   ruff, mypy and import-linter
#   make crash  the tests that kill, at every changing system call instead of a few (that of commands takes a quarter of an hour), and
#               those that cut the power, on ext4, xfs and btrfs (hours); needs root. LAMINA_SEED=1 LAMINA_CUTS=200 (on each file
#               system) LAMINA_POINTS=10 (of each command)
#   make defences  one defence of the engine taken out at a time, and its tests seen to fail (docs/security.md; half an hour); needs
#               root. DEFENCES=WORDS for those whose entry in tests/defences/table.py contains one of them
#   make soak   50 commands at once on one root directory for ten minutes, then 10,000 execs and 1 GB of log of one container, then
#               random layers checked; needs root. SOAK_S=SECONDS SOAK_WORKERS=50 SOAK_SEED=1
#   make beside Lamina and Docker, if there is a dockerd, given the same commands: power cuts, kills, many at once, growth, confinement
#               (tests/beside; needs root, starts a daemon of its own). WHAT=cuts,kills,soak,growth,confinement ENGINES=lamina,docker
#               COUNT=40 SECONDS=120 WORKERS=50 EXECS=1000 SEED=1
#   make vm-test  the tests marked `vm` on Debian's own kernel with cgroup v2, in a virtual machine; needs root. VM_TESTS=FILES or
#               other words for pytest choose others, VM_SECURITY=selinux the kernel's security module for these (else AppArmor)
#   make bench  Lamina and the engines that are here, timed on the same work (docs/speed.md); needs root and a quiet machine.
#               WORKS=run,build ROUNDS=20 ENGINES=docker,podman JSON=FILE PLOT=FILE PAGE=FILE FROM=FILE,FILE ANYWAY=1 STEADY=1 LIST=1
#   make clean  delete what the targets made in this directory

PYTHON ?= python3
BIN := .venv/bin
PYTEST_WORKERS ?= 3
VM_PYTEST = tests/vm/machine.py $(BIN)/python -m pytest --timeout 900 --durations 20
SELINUX_TESTS := tests/system/test_selinux.py

.PHONY: test demo lint crash defences soak beside vm-test bench check-lint set-up-test set-up-demo set-up-vm clean

# A test that fails is run once more, and listed as rerun: the machine may be slow at the wrong moment, a real fault fails twice.
# The tests run even if lint finds something, so that one run tells everything; either one's failure is the target's.
test: set-up-test
	@status=0; \
	$(MAKE) --no-print-directory check-lint || status=1; \
	if [ "$$(id -u)" = 0 ]; then places=tests; else places=tests/unit; echo "make test: not root, so only tests/unit; sudo make test runs them all"; fi; \
	echo "make test: pytest $$places"; \
	$(BIN)/python -m pytest -n $(PYTEST_WORKERS) --dist worksteal --reruns 1 -r R $$places || status=1; \
	exit $$status

lint: set-up-test check-lint

crash: set-up-test
	LAMINA_KILLS=all $(BIN)/python -m pytest -n $(PYTEST_WORKERS) --timeout 36000 -k "kill or come_and_go_at_once or power_cut" tests/system

defences: set-up-test
	@LAMINA_RACES=5000 LAMINA_COPIES=500 LAMINA_ENTERED=20 $(BIN)/python -u tests/defences/run.py $(DEFENCES)

soak: set-up-test
	SOAK_S=$(or $(SOAK_S),600) SOAK_WORKERS=$(or $(SOAK_WORKERS),50) SOAK_SEED=$(or $(SOAK_SEED),1) LAMINA_CHECK_ROUNDS=500 \
		$(BIN)/python -m pytest -s --timeout 36000 tests/system/test_soak.py tests/system/test_check_random.py

beside: set-up-test
	@PYTHONPATH=tests/system $(BIN)/python tests/beside $(if $(WHAT),--what $(WHAT)) $(if $(ENGINES),--engines $(ENGINES)) \
		$(if $(COUNT),--count $(COUNT)) $(if $(SECONDS),--seconds $(SECONDS)) $(if $(WORKERS),--workers $(WORKERS)) \
		$(if $(EXECS),--execs $(EXECS)) $(if $(SEED),--seed $(SEED))

check-lint:
	@echo "make lint: ruff, mypy, import-linter"
	@status=0; \
	$(BIN)/ruff check -q --output-format concise || status=1; \
	$(BIN)/ruff format -q --check || { $(BIN)/ruff format --check; status=1; }; \
	$(BIN)/mypy --no-error-summary || status=1; \
	$(BIN)/lint-imports > .venv/lint-imports.log || { cat .venv/lint-imports.log; status=1; }; \
	exit $$status

demo: set-up-demo
	@if [ "$$(id -u)" != 0 ]; then echo "make demo: containers need root: sudo make demo" >&2; exit 1; fi
	@PATH="$(CURDIR)/$(BIN):$$PATH" sh demo/demo.sh

vm-test: set-up-vm
	@$(BIN)/python -m compileall -qq core plugins # an emulated processor would take minutes
ifdef VM_TESTS
	@$(BIN)/python $(VM_PYTEST) $(VM_TESTS)
else # twice, as a kernel has one of AppArmor and SELinux
	@status=0; \
	$(BIN)/python $(VM_PYTEST) -m vm $(filter-out $(SELINUX_TESTS),$(shell grep -rlw mark.vm tests/system)) || status=1; \
	VM_SECURITY=selinux $(BIN)/python $(VM_PYTEST) $(SELINUX_TESTS) || status=1; \
	exit $$status
endif

set-up-test set-up-demo set-up-vm: set-up-%:
	@PYTHON="$(PYTHON)" sh scripts/set-up.sh $*

bench: set-up-test
	@PYTHONPATH=bench $(BIN)/python -m lamina_bench $(if $(LIST),--list) $(if $(ANYWAY),--anyway) $(if $(STEADY),--steady) $(if $(WORKS),--works "$(WORKS)") \
		$(if $(ENGINES),--engines "$(ENGINES)") $(if $(ROUNDS),--rounds "$(ROUNDS)") \
		$(if $(JSON),--json "$(JSON)") $(if $(PLOT),--plot "$(PLOT)") $(if $(PAGE),--page "$(PAGE)") $(if $(FROM),--from "$(FROM)")

clean:
	rm -rf .venv build dist .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	find core plugins tests bench -name __pycache__ -type d -prune -exec rm -rf {} +
