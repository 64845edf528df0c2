# Every target does its own set-up; all of them need root (namespaces, XDP).
SHELL := /bin/bash
export PATH := $(PATH):$(HOME)/.cargo/bin
CARGO ?= cargo
NODES ?= 3
MODE ?= directed
# What the lab and the demo start.
BINARIES := -p farmd -p farmctl -p farm-lab

.DEFAULT_GOAL := help
# Where `make install` puts what it finds where.
PREFIX ?= /usr
DESTDIR ?=
BUILT ?= target/release
# Profile of `make bench`: release, or dev.
PROFILE ?= release
# Where `make bench` writes.
BENCH_OUT ?= bench.json

.PHONY: help setup build install build-lab test fuzz bench crash verify fix demo demo-table figures pages lab-up lab-down lab-status

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-11s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: ## packages, eBPF toolchain, bpffs; quick when nothing is missing
	@scripts/setup.sh

build: setup ## the daemon and the command line, release
	$(CARGO) build --locked --release

install: ## what make build built, into DESTDIR: below PREFIX, which is /usr
	@test -x $(BUILT)/farmd -a -x $(BUILT)/farmctl || { echo "nothing to install in $(BUILT): run make build" >&2; exit 1; }
	install -D -m 0755 -t $(DESTDIR)$(PREFIX)/bin $(BUILT)/farmd $(BUILT)/farmctl
	install -D -m 0644 -t $(DESTDIR)$(PREFIX)/lib/systemd/system conf/farmd.service conf/farm-applications.service conf/farm-witness.service
	sed -i 's|=/usr/bin/farm|=$(PREFIX)/bin/farm|' $(DESTDIR)$(PREFIX)/lib/systemd/system/farm*.service
	install -D -m 0644 -t $(DESTDIR)$(PREFIX)/lib/sysctl.d conf/99-farm-sysctl.conf
	install -D -m 0644 -t $(DESTDIR)$(PREFIX)/share/farm conf/farmd.toml conf/witness.toml

# The same profile as the tests, so that a fresh machine builds once.
build-lab: setup
	$(CARGO) build --locked $(BINARIES)

test: setup ## every test, quickest first
	@scripts/test.sh

bench: setup ## the figures, into BENCH_OUT, which is bench.json (BENCH_ARGS="--runs 5" for a shorter look)
	$(CARGO) build --locked --profile $(PROFILE) $(BINARIES)
	$(CARGO) run --locked --profile $(PROFILE) -p farm-lab -- bench --out $(BENCH_OUT) $(BENCH_ARGS)

figures: BENCH_OUT = docs/bench.json
figures: bench ## the figures of the documents anew, in about an hour and a quarter
	$(CARGO) run --locked --profile $(PROFILE) -p farm-lab -- pages

pages: ## the tables in the documents, from the results in docs
	$(CARGO) run --locked -p farm-lab -- pages

fuzz: setup ## looks for a frame that is judged wrongly, for FARM_FUZZ_SECONDS, which is 600
	@scripts/fuzz.sh

crash: setup ## power cuts, torn writes, failed fsyncs: many more than in make test
	FARM_CRASH_POINTS=$${FARM_CRASH_POINTS:-5000} $(CARGO) test --locked --release -p farm-store --test crash

verify: setup ## format, lints, documentation; changes nothing
	$(CARGO) fmt --all --check
	$(CARGO) fmt --check --manifest-path dataplane/ebpf/Cargo.toml
	$(CARGO) clippy --locked --workspace --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings -A rustdoc::private_intra_doc_links" $(CARGO) doc --locked --workspace --no-deps

fix: setup ## what verify would complain about, where a tool can mend it
	$(CARGO) clippy --locked --workspace --all-targets --fix --allow-dirty --allow-staged
	$(CARGO) fmt --all
	$(CARGO) fmt --manifest-path dataplane/ebpf/Cargo.toml

demo: build-lab ## three servers, one address, four faults
	target/debug/farm-lab demo $(DEMO_ARGS)

demo-table: build-lab ## the demo, and its table in the README
	target/debug/farm-lab demo --out docs/demo.json $(DEMO_ARGS)
	target/debug/farm-lab pages

lab-up: build-lab ## a farm of NODES nodes in network namespaces (MODE=directed|flood)
	target/debug/farm-lab up --nodes $(NODES) --mode $(MODE)

lab-down: build-lab ## take it down
	target/debug/farm-lab down

lab-status: build-lab ## what is up
	target/debug/farm-lab status
