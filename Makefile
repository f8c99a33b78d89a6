# The words of this project. `make demo` and `make test` need root, Linux and the Go module proxy; nothing else has to be installed.
SHELL := /bin/bash
export CGO_ENABLED := 0
VERSION := $(shell git describe --always --dirty 2>/dev/null || echo dev)
LDFLAGS := -s -w -X main.version=$(VERSION)
PROGRAMS := tare tared tare-run tare-registry

.PHONY: all build test deps lint e2e e2e-vm fuzz bench demo clean

all: build

build: ## the four programs into bin/
	@mkdir -p bin
	go build -trimpath -ldflags '$(LDFLAGS)' -o bin/ $(PROGRAMS:%=./cmd/%)

lint: ## gofmt, go vet
	@test -z "$$(gofmt -l cmd internal test bench | tee /dev/stderr)"
	go vet ./...

test: lint build deps ## everything CI runs: lint, unit, integration with real containers (root), architecture
	PATH=$(CURDIR)/.cache/bin:$$PATH TARE_BIN=$(CURDIR)/bin go test -timeout 40m ./...

deps: ## what the tests run beside Tare, where it is missing: a few Debian packages, the docker command line
	test/deps.sh

e2e: build ## real programs in real images (debootstrap, apt, nginx, redis, peers); installs what it needs
	test/e2e/run.sh

fuzz: ## every fuzz target for FUZZTIME (60s) each; FUZZ=regexp takes some of them, by PACKAGE.TARGET
	test/fuzz.sh

e2e-vm: ## the runtime's tests and an engine in a virtual machine: Debian's kernel, systemd, cgroup v2, hybrid and v1; installs what it needs
	test/vm/run.sh

bench: build ## interleaved with Debian's docker and podman; writes bench/README.md
	bench/run.sh

demo: build ## build, ship and run, for real, in a temporary root
	test/demo.sh

clean:
	rm -rf bin .cache
