# The front door. On a fresh Debian 12 or 13 with python3, git and make:   make lab LAB=zombies
#
# `make` alone lists what there is. Whatever is missing is installed first (runner/host/install.sh): system packages with apt-get, as
# root or with sudo, and Python packages into .venv; a second run finds everything and installs nothing.
#
# vmlab's exit status is 0 all checks passed, 1 a check failed, 2 a wrong request, 3 could not run. make itself always ends with 2 then,
# and says vmlab's in its own last line: "make: *** [Makefile:...: lab] Error 1". For the bare status use .venv/bin/vmlab.

LABS    := labs
REPORTS ?= reports
WORKERS ?= 2
FORM = $(or $(value ANSWERS),answers.yaml)

VENV := .venv/bin
SETUP = sh runner/host/install.sh

# $(call quoted,NAME): the variable's value as one word of the shell, whatever is in it. NAMES and PARAM are lists of such words.
quote  = '$(subst ','\'',$(1))'
quoted = $(call quote,$(value $(1)))
# $(call option,--flag,NAME): "--flag value" when the variable is set.
option = $(if $(value $(2)),$(1) $(call quoted,$(2)))
NAMES = $(foreach name,$(value LAB),$(call quote,$(name)))
# Any other NAME=value on make's command line sets the lab's parameter of that name: make lab LAB=memory HOST=npt.
OURS  = LAB JOBS IMAGE ACCEL PARAM ANSWERS WORK TASK STUDENT QUIET COLD ARGS REPORTS WORKERS PYTHON MIRROR LABS VMLAB_% MAKE% SHELL
GIVEN = $(sort $(filter-out $(OURS),$(foreach name,$(.VARIABLES),$(if $(findstring command line,$(origin $(name))),$(name)))))
PARAMETERS = $(foreach name,$(GIVEN),--param $(call quote,$(name)=$(value $(name))))
COLDLY = $(if $(filter-out 0 no,$(COLD)),--cold)
TASKS = $(foreach name,$(value TASK),$(call quote,$(name)))
STUDENTS = $(call option,--answers,ANSWERS) $(call option,--work,WORK) $(call option,--student,STUDENT)
OPTIONS = $(call option,--accel,ACCEL) $(call option,--image,IMAGE) $(foreach pair,$(value PARAM),--param $(call quote,$(pair))) $(PARAMETERS) \
	--reports $(call quoted,REPORTS) $(if $(filter-out 0 no,$(QUIET)),--quiet) $(COLDLY) $(ARGS)

PYTEST = $(VENV)/python -m pytest -n $(WORKERS) --dist loadgroup
SLOW = guest or browser or slow
# The least part of statements and branches, in percent, that the fast tests run: of all, and of each module on which all runs rest.
LEAST_OF_ALL = 85
LEAST_OF_EACH = 80
EACH = many/schedule many/pool run/lab run/session run/screen run/shell run/prebuild guest/ssh guest/machine
# Processes that tests start in other directories leave what they measured where all can be joined.
COVERAGE = export COVERAGE_FILE=$(CURDIR)/.coverage && $(PYTEST) -m "not ($(SLOW))" --cov --cov-report= \
	&& $(VENV)/coverage report --fail-under=$(LEAST_OF_ALL) \
	&& for each in $(EACH); do \
		printf '%s, percent: ' $$each && $(VENV)/coverage report --include="*/vmlab/$$each.py" --format=total --fail-under=$(LEAST_OF_EACH) || exit; done

ifneq ($(origin PYTHON),undefined)
export PYTHON
endif

.DEFAULT_GOAL := help
.PHONY: lab labs controls predict start try shell report doctor test test-fast test-kvm mutants coverage lint clean help
.SILENT:

lab: ## run a lab, or several: make lab LAB=zombies [IMAGE= ACCEL=kvm|tcg ANSWERS=file STUDENT=id QUIET=1 COLD=1 PARAMETER=value ARGS=]
	$(call need_lab,lab)
	$(SETUP) run && exec $(VENV)/vmlab run $(NAMES) $(STUDENTS) $(OPTIONS)

labs: ## run all labs, as many at once as there are slots; reports/index.html leads to all [same, JOBS=auto]
	$(SETUP) run && exec $(VENV)/vmlab run all $(call option,--jobs,JOBS) $(STUDENTS) $(OPTIONS)

controls: ## whether a lab's checks fail where its claims are false: make controls LAB=zombies [LAB=all, JOBS=1 IMAGE= ACCEL= PARAM= ARGS="--world NAME"]
	$(call need_lab,controls)
	$(SETUP) run && exec $(VENV)/vmlab controls $(NAMES) $(call option,--jobs,JOBS) $(OPTIONS)

predict: ## a form for predictions, to be filled in before the run: make predict LAB=zombies [ANSWERS=answers.yaml]
	$(call need_lab,predict)
	$(SETUP) python && exec $(VENV)/vmlab predict $(NAMES) --output $(call quote,$(FORM)) $(ARGS)

start: ## your own part of a lab: tasks, starter files and the form for predictions, in work/LAB: make start LAB=zombies [WORK=dir]
	$(call need_lab,start)
	$(SETUP) python && exec $(VENV)/vmlab start $(call quoted,LAB) $(call option,--work,WORK) $(ARGS)

try: ## try your work on a lab's tasks, in seconds: make try LAB=zombies TASK=reaper [WORK=dir IMAGE= ACCEL= COLD=1 ARGS=]
	$(call need_lab,try)
	$(SETUP) run && exec $(VENV)/vmlab try $(call quoted,LAB) $(TASKS) $(call option,--work,WORK) $(call option,--accel,ACCEL) $(call option,--image,IMAGE) $(COLDLY) $(ARGS)

shell: ## a shell in a guest of a lab: make shell LAB=zombies [TASK=leak IMAGE= ACCEL= COLD=1 ARGS=]
	$(call need_lab,shell)
	$(SETUP) run && exec $(VENV)/vmlab shell $(call quoted,LAB) $(call option,--task,TASK) $(call option,--accel,ACCEL) $(call option,--image,IMAGE) $(COLDLY) $(ARGS)

report: ## the newest report in brief, and where it is [LAB=]
	$(SETUP) python && exec $(VENV)/vmlab report $(NAMES) --reports $(call quoted,REPORTS) $(ARGS)

doctor: ## what this machine is and can do for labs, and what is missing
	$(SETUP) python && exec $(VENV)/vmlab doctor $(ARGS)

# All tests count towards their success, but the fast ones alone towards coverage, so they run apart; some only (ARGS) say nothing of it.
test: ## all tests; guests are booted, images are built; the fast ones with their coverage [WORKERS=2 ARGS=]
	$(SETUP) test && $(if $(ARGS),exec $(PYTEST) $(ARGS),$(COVERAGE) && exec $(PYTEST) -m "$(SLOW)")

test-fast: ## the tests without guests, browser and long measurements [WORKERS=2 ARGS=]
	$(SETUP) lint && exec $(PYTEST) -m "not ($(SLOW))" $(ARGS)

mutants: ## every small mistake in a lab's checks that its tests do not notice; minutes: make mutants LAB=zombies [WORKERS=2 ARGS=]
	$(call need_lab,mutants)
	$(SETUP) lint && exec $(VENV)/python -m tests.mutants $(call quoted,LAB) --jobs $(WORKERS) $(ARGS)

coverage: ## what part of vmlab the fast tests run, branches too; fails below the limits that the Makefile sets [WORKERS=2]
	$(SETUP) lint && $(COVERAGE)

test-kvm: ## those of the runner's KVM path: vmlab inside an emulated host that has KVM; needs none here [ARGS=]
	$(SETUP) test && exec $(VENV)/python -m pytest -m kvm $(ARGS)

lint: ## ruff and mypy
	$(SETUP) lint && $(VENV)/ruff check && $(VENV)/ruff format --check && $(VENV)/mypy

clean: ## remove what make put here (.venv, builds, caches); reports stay, images too (vmlab clean)
	rm -rf .venv build dist .pytest_cache .mypy_cache .ruff_cache .coverage*
	find $(LABS) runner tests -type d -name __pycache__ -prune -exec rm -rf {} +

help: ## this list
	echo 'vmlab: labs that make an operating-systems course measurable'
	echo
	sed -n 's/^\([a-z-]*\):.*## \(.*\)/\1\t\2/p' Makefile | while IFS="$$(printf '\t')" read -r name text; do printf '  make %-11s%s\n' "$$name" "$$text"; done
	echo
	echo '  labs here:' $(patsubst $(LABS)/%/lab.yaml,%,$(wildcard $(LABS)/*/lab.yaml))

define need_lab
	if [ -z $(call quoted,LAB) ]; then \
	echo "vmlab: which lab? name it: make $(1) LAB=zombies" >&2; \
	echo "vmlab: there are:" $(patsubst $(LABS)/%/lab.yaml,%,$(wildcard $(LABS)/*/lab.yaml)) >&2; exit 2; fi
endef
