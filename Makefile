# What a person types. CI runs `make test` too (see .ci/run).
#
# RocksDB takes most of the first build, so its output lies outside the clone
# and is used again by the next one.
export CARGO_TARGET_DIR ?= $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/dovetail-target
export CARGO_TERM_COLOR ?= auto

.PHONY: demo test test-long bench lint fix prepare

## The whole system on this machine, with a stand-in for Docker.
demo: prepare
	@echo "dovetail: the first build takes 10 to 15 minutes (RocksDB); later ones take seconds"
	cargo build --workspace --bins
	"$(CARGO_TARGET_DIR)/debug/dovetail" demo $(DEMO)

## Every test that fits into an hour on two cores.
test: prepare
	cargo fmt --all --check
	cargo clippy --workspace --all-targets -- -D warnings
	cargo build --workspace --all-targets
	cargo test --workspace --no-fail-fast

## What takes longer, or needs programs that CI does not install.
test-long: test
	DOVETAIL_LONG=1 cargo test --workspace --no-fail-fast
	jepsen-style-tests/lab/autobahn.py
	jepsen-style-tests/lab/tls_scan.py

## Figures of the core, beside etcd when it is given: BENCH="--etcd DIR --chart core.svg"
bench: prepare
	cargo build --release --workspace --bins
	"$(CARGO_TARGET_DIR)/release/dovetail-bench" $(BENCH)

lint:
	cargo fmt --all --check
	cargo clippy --workspace --all-targets -- -D warnings

fix:
	cargo fmt --all

## Debian packages that the build and the tests need, installed when missing.
prepare:
	@.ci/prepare
