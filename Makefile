# Two commands are enough: `make run` and `make test`.  Both start from a machine that has
# nothing but git, make and python3; the rest is installed when it is missing.

PREFIX ?= /usr/local
VENV := .venv/bin

.DEFAULT_GOAL := help
.PHONY: help install run test lint docs golden clean uninstall

help:  ## this list
	@sed -n 's/^\([a-z]*\):.*##  *\(.*\)/make \1|\2/p' Makefile | awk -F'|' '{ printf "%-16s%s\n", $$1, $$2 }'

install:  ## what minicontainer needs, and the command itself (PREFIX=/usr/local)
	@tools/install --prefix '$(PREFIX)'

run: install  ## install, then a shell in a container
	@tools/first-run '$(PREFIX)/bin/minicontainer'

test:  ## every test, as root (ARGS="-k mounts" chooses)
	@tools/install --tests
	@tools/as-root $(VENV)/python -m pytest --again uml,shared $(ARGS)

lint:  ## ruff and strict mypy alone (the tests run them too)
	@tools/install --tests
	$(VENV)/ruff check .
	$(VENV)/ruff format --check .
	$(VENV)/mypy

docs:  ## rewrite the generated blocks in the Markdown files
	@tools/install --tests
	@$(VENV)/python tools/docs

golden:  ## rewrite what tests/golden keeps of the code's output
	@tools/install --tests
	@$(VENV)/python -m pytest -q --update-golden tests/unit/test_story.py

clean:  ## remove what the other targets made in this directory
	@tools/as-root rm -rf .venv build *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	@tools/as-root rm -f minicontainer/_libc*.so minicontainer/trampoline
	@tools/as-root find . -name __pycache__ -prune -exec rm -rf {} +

uninstall:  ## remove the command; images and containers stay
	@tools/install --uninstall --prefix '$(PREFIX)'
