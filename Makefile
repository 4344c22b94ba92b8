# One optimised profile for everything, so that dependencies compile once.
cargo := cargo
flags := --release --locked
shell_scripts = $(shell grep -lsE '^\#!.*bash|shellcheck shell=bash' scripts/* .ci/run)

.DEFAULT_GOAL := help
.PHONY: help run setup test test-long lint fmt bench load clean

help: ## Print this list
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 12

run: ## Set up, build, start the server in the foreground; index sample documentation on the first run
	scripts/setup run
	$(cargo) build $(flags)
	scripts/run

setup: ## Set up everything that running and testing need
	scripts/setup test

test: ## Set up and run every test that ends within 20 minutes
	scripts/setup test
	scripts/with-postgres $(cargo) test $(flags) --no-fail-fast
	scripts/with-postgres scripts/check_container
	scripts/with-postgres scripts/check_monitoring
	scripts/with-postgres scripts/check_api

test-long: test ## The same, and then the soaks and long fault runs, one at a time, with what they measure (25 minutes more)
	scripts/with-postgres $(cargo) test $(flags) --no-fail-fast --lib --test it -- --ignored --nocapture --test-threads=1 \
		--skip child_with

lint: ## Formatting, clippy, rustdoc, dependency policy, manifests, load suite, scripts and workflow
	scripts/setup lint
	$(cargo) fmt --check
	$(cargo) clippy $(flags) --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings" $(cargo) doc $(flags) --no-deps --document-private-items
	scripts/check_dependencies.py
	scripts/check_manifests
	scripts/check_load
	.tools/bin/shellcheck $(shell_scripts)
	.tools/bin/zizmor --offline --quiet .github/workflows

fmt: ## Format the Rust code
	$(cargo) fmt

bench: ## Run the benchmarks, beside a throw-away Postgres
	scripts/setup bench
	scripts/with-postgres $(cargo) bench --locked

load: ## Load the server with k6: its contract, or SCENARIO=… (SHORT=1 for a quick look, BASE_URL=… for a running server)
	scripts/setup test
	@# Built as the tests build it: without their features cargo would compile most dependencies a second time.
	$(cargo) test $(flags) --no-run --test it
	scripts/load

clean: ## Remove what was built; the data directory and .tools/ stay
	$(cargo) clean
