# Longshore. "make help" lists what there is.

SHELL       := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

GO      ?= go
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
BIN     := bin
TOOLS   := .tools
LDFLAGS := -s -w -X main.version=$(VERSION)
BUILD   := CGO_ENABLED=0 $(GO) build -trimpath -ldflags '$(LDFLAGS)'
# RACE=1 turns the race detector on; PKG and RUN narrow what "make test" runs.
PKG     ?= ./...
RUN     ?=
TESTFLAGS := $(if $(RACE),-race) $(if $(RUN),-run '$(RUN)')

.PHONY: help
help: ## List the targets
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | sort | awk -F':.*## ' '{printf "  \033[1m%-10s\033[0m %s\n", $$1, $$2}'

.PHONY: build
build: ## Build the four programs into bin/
	$(BUILD) -o $(BIN)/longshore-server ./cmd/server
	$(BUILD) -o $(BIN)/longshore-agent ./cmd/agent
	$(BUILD) -o $(BIN)/longshore-executor ./cmd/executor
	$(BUILD) -o $(BIN)/longshore-bucket ./cmd/bucket

.PHONY: cross
cross: ## Build for every supported platform (linux amd64 and arm64; the agent for darwin, too)
	for arch in amd64 arm64; do \
		for program in server agent executor bucket; do \
			GOOS=linux GOARCH=$$arch $(BUILD) -o $(BIN)/longshore-$$program-linux-$$arch ./cmd/$$program; \
		done; \
		GOOS=darwin GOARCH=$$arch $(BUILD) -o $(BIN)/longshore-agent-darwin-$$arch ./cmd/agent; \
	done

.PHONY: image
image: ## Build the container image longshore:$(VERSION)
	docker build --build-arg VERSION=$(VERSION) -t longshore:$(VERSION) .

.PHONY: demo
demo: build ## Run a deployment from a git repository, end to end (KEEP=1 leaves the server up)
	@$(GO) run ./e2e/demo -bin $(BIN) $(if $(KEEP),-keep)

.PHONY: test
test: ## Run every test; those whose parts are missing skip and say so (RACE=1, PKG=..., RUN=...)
	PATH="$(CURDIR)/$(TOOLS):$$PATH" $(GO) test $(TESTFLAGS) -timeout 15m $(PKG)

.PHONY: e2e
e2e: ## Run the end-to-end tests alone, verbosely
	PATH="$(CURDIR)/$(TOOLS):$$PATH" $(GO) test $(TESTFLAGS) -timeout 15m -count=1 -v ./e2e/...

.PHONY: bench
bench: build ## Measure against the floors and write docs/benchmarks.md (ONLY=b1,b3 narrows it, ONLY=soak works for half an hour)
	$(GO) run ./e2e/bench -bin $(BIN) -out docs/benchmarks.md $(if $(ONLY),-only $(ONLY))

.PHONY: faults
faults: build ## Kill, cut and delay under load, check every promise, write docs/reliability.md (SEED=..., DEPLOYMENTS=..., CONTAINED=...)
	$(GO) run ./e2e/reliability -bin $(BIN) -out docs/reliability.md $(if $(SEED),-seed $(SEED)) $(if $(DEPLOYMENTS),-deployments $(DEPLOYMENTS)) $(if $(CONTAINED),-contained $(CONTAINED))

FUZZTIME ?= 30s

.PHONY: fuzz
fuzz: ## Run every fuzz target for a while (FUZZTIME=30s)
	@grep -rn --include='*_test.go' -oE '^func Fuzz[A-Za-z0-9]+' cmd internal | sed -E 's#/[^/]*:[0-9]+:func # #' | sort | while read -r package target; do \
		echo "$$package $$target"; \
		$(GO) test -run '^$$' -fuzz "^$$target\$$" -fuzztime $(FUZZTIME) "./$$package"; \
	done

.PHONY: lint
lint: $(TOOLS)/golangci-lint $(TOOLS)/gofumpt ## Run go vet, the linters and the formatter's check
	$(GO) vet ./...
	@unformatted="$$($(TOOLS)/gofumpt -l $$(git ls-files '*.go' | grep -v '\.gen\.go$$'))"; \
		if [ -n "$$unformatted" ]; then echo "not formatted, run make fmt:"; echo "$$unformatted"; exit 1; fi
	$(TOOLS)/golangci-lint run --allow-parallel-runners ./...

.PHONY: fmt
fmt: $(TOOLS)/gofumpt ## Format the code
	$(TOOLS)/gofumpt -l -w $$(git ls-files '*.go' | grep -v '\.gen\.go$$')

.PHONY: vuln
vuln: $(TOOLS)/govulncheck ## Check dependencies against the Go vulnerability database
	$(TOOLS)/govulncheck ./...

.PHONY: generate
generate: $(TOOLS)/oapi-codegen ## Generate the REST types and server interface from api/openapi.yaml
	PATH="$(CURDIR)/$(TOOLS):$$PATH" $(GO) generate ./...

.PHONY: clean
clean: ## Remove what the other targets made
	rm -rf $(BIN) $(TOOLS) .longshore

# The S3 server of the tests has its own dependencies, and many: it is no tool of the module.
VERSITYGW := v1.8.0
$(TOOLS)/versitygw:
	GOBIN="$(CURDIR)/$(TOOLS)" CGO_ENABLED=0 $(GO) install github.com/versity/versitygw/cmd/versitygw@$(VERSITYGW)
$(TOOLS)/golangci-lint: hack/tools/go.mod
	cd hack/tools && GOFLAGS=-mod=mod $(GO) build -o ../../$@ github.com/golangci/golangci-lint/v2/cmd/golangci-lint
$(TOOLS)/gofumpt: hack/tools/go.mod
	cd hack/tools && GOFLAGS=-mod=mod $(GO) build -o ../../$@ mvdan.cc/gofumpt
$(TOOLS)/govulncheck: hack/tools/go.mod
	cd hack/tools && GOFLAGS=-mod=mod $(GO) build -o ../../$@ golang.org/x/vuln/cmd/govulncheck
$(TOOLS)/oapi-codegen: hack/tools/go.mod
	cd hack/tools && GOFLAGS=-mod=mod $(GO) build -o ../../$@ github.com/oapi-codegen/oapi-codegen/v2/cmd/oapi-codegen
