# Every command of the project. `make run` and `make test` set up what they need themselves.
.PHONY: run build dist test check fmt bench simulate simulate-cluster overload outage abuse fuzz kills docs docs-site deps test-deps cluster-race cluster-jobs cluster-faults architecture

run: deps             ## build the gateway alone, then serve config/ with SQLite in data/ and the bundled simulated upstream
	cargo build --release -p gateway
	./target/release/sluice serve --config config

build: deps           ## the gateway and its tools: sluice-stress, sluice-eval, simulated-upstream
	cargo build --release --workspace --bins

dist: build           ## a tarball and a Debian package in target/dist: programs, manual pages, completions, units; reproducible
	@tests/setup dist
	deploy/dist target/release target/dist

test: deps test-deps  ## unit, property and end-to-end tests with the real programs
	cargo build --workspace --bins
	cargo test --workspace

check:                ## format and lints, warnings as errors
	cargo fmt --all --check
	cargo clippy --workspace --all-targets -- -D warnings

fmt:
	cargo fmt --all

bench: build          ## side by side with other proxies; needs PEERS (see docs/performance.md)
	tests/bench/run

simulate: deps        ## an hour of overload in virtual time: shares, waits, fairness
	cargo run --release -p policy --example simulate

simulate-cluster: deps  ## gateways that lease a rate limit, in virtual time: what is used, whether it is exceeded, round trips
	cargo run --release -p policy --example simulate-cluster

overload: build       ## a VIP under a flood, live: a server of four slots asked directly, through Sluice, through LiteLLM if installed
	tests/overload/run

outage: deps test-deps  ## a batch of 5,000 lines through a minute of 429, of a dead server and of 503, three kills and a drain
	cargo build --workspace --bins
	cargo test -p end-to-end --test outage -- --ignored --nocapture

abuse: deps test-deps   ## 100,000 mutated requests over both listeners, and servers that break every rule
	cargo build --workspace --bins
	cargo test -p end-to-end --test abuse -- --include-ignored --nocapture

fuzz: deps             ## property tests of parsers, readers, translators and the policy, SECONDS (600) each with ever new cases
	tests/fuzz $(SECONDS)

cluster-race: deps test-deps  ## 300 clients race over three gateways for a budget for 50, a hundred times, half of them with a kill -9
	cargo build --workspace --bins
	cargo test -p end-to-end --test cluster hundred_races -- --ignored --nocapture

cluster-jobs: deps test-deps  ## 5,000 lines of batches over three gateways, one of which is killed every five seconds
	cargo build --workspace --bins
	cargo test -p end-to-end --test cluster five_thousand -- --ignored --nocapture

cluster-faults: deps test-deps  ## three gateways whose database, or Valkey or Redis, is late, silent or cut in the middle of replies
	cargo build --workspace --bins
	cargo test -p end-to-end --test cluster every_fault -- --ignored --nocapture

kills: deps test-deps   ## 1,000 kills under load, half with SQLite and half with PostgreSQL: no acknowledged record lost, none doubled
	cargo build --workspace --bins
	SLUICE_RUNS=500 cargo test -p end-to-end --test crash kills -- --nocapture

docs:                 ## the tables of docs/configuration.md, from the types that read the files
	SLUICE_WRITE_DOCS=1 cargo test -p gateway the_page_on_configuration

docs-site:            ## README and docs/ as a site in target/docs-site, with a search, readable without a network
	deploy/docs-site/build

architecture:         ## the graph of crates and modules, from manifests and sources; fails on a cycle
	SLUICE_WRITE_DOCS=1 cargo test -p end-to-end --test shape architecture

deps:                 ## what the build needs beside the Rust toolchain
	@tests/setup build

test-deps:            ## what the tests need: Python clients, a real llama.cpp server
	@tests/setup test
