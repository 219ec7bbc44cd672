# Dray's build. `make` lists the targets. Tools come from Go's module proxy, so nothing is needed but Go and make, for the
# race detector a C compiler, and for the long tests Python with numpy.

SHELL := /bin/bash
.SHELLFLAGS := -o pipefail -c
.DEFAULT_GOAL := help

tool := go tool -modfile=internal/tools/go.mod
# The modules of this repository. The tools' own module holds no code.
modules := . $(patsubst %/go.mod,%,$(wildcard bench/go.mod))

.PHONY: help
help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' Makefile | expand -t 12

.PHONY: build
build: ## build bin/dray, one static binary
	CGO_ENABLED=0 go build -trimpath -o bin/dray ./cmd/dray

.PHONY: fmt
fmt: tools ## format the code
	$(tool) gofumpt -w .

.PHONY: tools
tools:
	@$(tool) gofumpt -version >/dev/null && $(tool) staticcheck -version >/dev/null || { \
		echo 'make: gofumpt and staticcheck could not be built: see internal/tools/go.mod; they come from the Go module proxy' >&2; exit 1; }

# Tests that need more than Go stand behind build tags: TAG:PACKAGE.
tagged = browser:./dash netns:./cmd/dray npm:./cmd/dray s3:./edge
.PHONY: lint
lint: tools ## formatting, vet, staticcheck and the rules of internal/arch
	@files=$$($(tool) gofumpt -l .) || exit 1; \
	if [[ -n $$files ]]; then echo "not formatted; run 'make fmt':" >&2; echo "$$files" >&2; exit 1; fi
	@for m in $(modules); do (cd $$m && echo "vet and staticcheck $$m" && go vet ./... && \
		go tool -modfile=$(CURDIR)/internal/tools/go.mod staticcheck ./...) || exit 1; done
	@for t in $(tagged); do echo "vet and staticcheck $${t#*:} with $${t%:*}" && go vet -tags $${t%:*} $${t#*:} && \
		$(tool) staticcheck -tags $${t%:*} $${t#*:} || exit 1; done
	go test ./internal/arch

.PHONY: check
check: lint race ## lint, then all tests with the race detector; what did not change is not run again

.PHONY: test
test: lint race heavy npm s3 browser netns deploy-check ## everything that a change must pass; installs what it needs

# The race detector needs cgo and a C compiler. Without one this installs it where that is possible, and else stops: a run
# without the detector is not the same test.
cc_works = echo 'int main(void){return 0;}' | $$(go env CC) -x c - -o /dev/null 2>/dev/null
.PHONY: race
race:
	@$(cc_works) || { [[ $$(id -u) == 0 ]] && command -v apt-get >/dev/null && \
		apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq gcc libc6-dev >/dev/null; } || true
	@$(cc_works) || { echo "make test: no working C compiler ($$(go env CC)), which Go's race detector needs:" \
		"install gcc, or set CC" >&2; exit 1; }
	CGO_ENABLED=1 go test -race $$(go list ./... | grep -vE '$(crowds)')
	CGO_ENABLED=1 go test -race -timeout 20m -p 1 $$(go list ./... | grep -E '$(crowds)')

# These packages start crowds of processes and peers, and fill the machine alone: two at once time each other out.
crowds = /(cmd/dray|interop)$$

# The long tests let numpy write and read files of tensors. Debian's numpy belongs to Debian's Python, which need not be the
# first one on the PATH.
numpy = $$(for p in $$DRAY_PYTHON python3 /usr/bin/python3; do "$$p" -c 'import numpy' 2>/dev/null && echo "$$p" && break; done)
.PHONY: python
python:
	@[[ -n "$(numpy)" ]] || { [[ $$(id -u) == 0 ]] && command -v apt-get >/dev/null && \
		apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq python3-numpy >/dev/null; } || true
	@[[ -n "$(numpy)" ]] || { echo "make test: no Python with numpy, which the long tests need:" \
		"install python3-numpy, or name one in DRAY_PYTHON" >&2; exit 1; }

# Tests that take longer than a minute choose their length by DRAY_TEST=long; the race detector would only slow them down,
# and has already seen the same code. Packages without such a test are not run twice. The modules beside the product's are
# tested here too.
long = $$(grep -rlF '"DRAY_TEST")' --include='*_test.go' . | xargs dirname | sort -u)
.PHONY: heavy
heavy: python
	@for m in $(filter-out .,$(modules)); do echo "test $$m"; (cd $$m && go test ./...) || exit 1; done
	DRAY_TEST=long DRAY_PYTHON="$(numpy)" go test -timeout 30m $(long)

# The page is tested in a real browser, Debian's chromium or the one that DRAY_CHROMIUM names.
chromium = $$(command -v "$${DRAY_CHROMIUM:-chromium}" || command -v chromium-browser || command -v google-chrome)
.PHONY: chromium
chromium:
	@[[ -n "$(chromium)" ]] || { [[ $$(id -u) == 0 ]] && command -v apt-get >/dev/null && \
		apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends chromium fonts-dejavu-core >/dev/null; } || true
	@[[ -n "$(chromium)" ]] || { echo "make test: no chromium, which the tests of the page need:" \
		"install it, or name one in DRAY_CHROMIUM" >&2; exit 1; }

.PHONY: browser
browser: chromium ## the page in a real browser, with real daemons
	DRAY_CHROMIUM="$(chromium)" go test -count=1 -timeout 10m -tags browser ./dash

.PHONY: screenshots
screenshots: chromium ## make the pictures in docs/img again
	@mkdir -p docs/img
	DRAY_CHROMIUM="$(chromium)" DRAY_SCREENSHOTS=$(CURDIR)/docs/img go test -count=1 -tags browser -run 'TestScreenshots$$' ./dash

# Hosts behind routers are network namespaces: they need root, iproute2 and nftables.
netns_works = command -v nft >/dev/null && ip netns add dray-probe 2>/dev/null && \
	ip netns exec dray-probe nft add table ip probe 2>/dev/null; works=$$?; ip netns del dray-probe 2>/dev/null; (exit $$works)
.PHONY: netns
netns: ## hosts behind routers, in network namespaces; needs root, iproute2 and nftables
	@$(netns_works) || { [[ $$(id -u) == 0 ]] && command -v apt-get >/dev/null && \
		apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq iproute2 nftables >/dev/null; } || true
	@$(netns_works) || { echo "make netns: hosts cannot be made: that needs root, iproute2 (ip) and nftables (nft)," \
		"and a kernel that lets network namespaces be made" >&2; exit 1; }
	go test -tags netns -count=1 -run '^TestNetns' ./cmd/dray

# The edge reads from a real server that speaks S3, which is built once from the module proxy.
s3_server := github.com/versity/versitygw/cmd/versitygw@v1.8.0
s3_bin = $(shell go env GOCACHE)/dray-$(subst /,-,$(subst @,-,$(s3_server)))
.PHONY: s3
s3: ## the edge with a real server that speaks S3
	@[[ -x $(s3_bin)/versitygw ]] || GOBIN=$(s3_bin) go install $(s3_server) || { \
		echo "make test: $(s3_server), which the tests of buckets need, cannot be built; it comes from the Go module proxy" >&2; exit 1; }
	DRAY_S3_SERVER=$(s3_bin)/versitygw go test -tags s3 -run Bucket ./edge

# The client of the Hugging Face Hub for JavaScript, as cmd/dray/testdata/npm pins it, downloads from real daemons.
npm_home = $(CURDIR)/bin/npm
.PHONY: npm
npm: ## let the Hub's real client for JavaScript download from daemons
	@command -v npm >/dev/null || { [[ $$(id -u) == 0 ]] && command -v apt-get >/dev/null && \
		apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends nodejs npm >/dev/null; } || true
	@command -v npm >/dev/null || { echo "make npm: npm is missing: install nodejs (18 or newer) and npm" >&2; exit 1; }
	@mkdir -p $(npm_home) && cp cmd/dray/testdata/npm/* $(npm_home)/ && cd $(npm_home) && npm ci --silent --no-audit --no-fund --ignore-scripts
	DRAY_NPM=$(npm_home) go test -tags npm -count 1 -run 'TestNPM' ./cmd/dray

SEEDS ?= 10000
.PHONY: nightly
nightly: ## run SEEDS random worlds of the simulator (10000)
	go test -timeout 0 -run 'TestSeeds$$' ./sim -seeds $(SEEDS)

FUZZTIME ?= 10s
.PHONY: fuzz
fuzz: ## run every fuzz target for FUZZTIME each (10s)
	@grep -rlE '^func Fuzz[A-Za-z0-9_]*\(' --include='*_test.go' . | grep -v /testdata/ | sort | while read -r file; do \
		dir=$$(dirname $$file); \
		grep -oE '^func Fuzz[A-Za-z0-9_]*' $$file | cut -c6- | while read -r name; do \
			echo "$$dir $$name"; \
			(cd $$dir && go test -run '^$$' -fuzz "^$$name\$$" -fuzztime $(FUZZTIME) -fuzzminimizetime 100x .) </dev/null || exit 1; \
		done || exit 1; \
	done

.PHONY: bench
bench: bench-tools ## measure side by side with others; prints a table; BENCHFLAGS="-run swarm" for a part of it
	cd bench && go build -o bench . && ./bench $(BENCHFLAGS)

.PHONY: faults
faults: bench-tools ## what a get does when paths, peers and disks fail, beside others; FAULTFLAGS="-rounds 1 -programs dray"
	cd bench && go build -o bench . && ./bench faults $(FAULTFLAGS)

.PHONY: idle
idle: ## what a daemon costs while nothing is asked of it: start, memory and CPU with 50 peers
	cd bench && go build -o bench . && ./bench idle $(IDLEFLAGS)

# The others that bench measures against, where they can be installed. A row without its program says so in the report.
bench_tools = curl rsync python3-libtorrent aria2
.PHONY: bench-tools
bench-tools:
	@missing=; for p in $(bench_tools); do dpkg -s $$p >/dev/null 2>&1 || missing+=" $$p"; done; \
	[[ -z $$missing ]] || { [[ $$(id -u) == 0 ]] && command -v apt-get >/dev/null && apt-get update -qq && \
		DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $$missing >/dev/null; } || \
		echo "make bench: not installed:$$missing; their rows are left out" >&2

.PHONY: release
release: ## the archives of a release in dist/, the same bytes wherever they are built; TARGETS="linux/amd64" for fewer
	@deploy/release.sh

# What checks the files in deploy/.
helm_version = v3.22.0
bin/tools/helm:
	GOBIN=$(CURDIR)/bin/tools go install helm.sh/helm/v3/cmd/helm@$(helm_version)

deploy_tools = systemd man-db groff
.PHONY: deploy-check
deploy-check: bin/tools/helm ## check what deploy/ holds with Helm, systemd and man, and that a release can be reproduced
	@missing=; for p in $(deploy_tools); do dpkg -s $$p >/dev/null 2>&1 || missing+=" $$p"; done; \
	[[ -z $$missing ]] || { [[ $$(id -u) == 0 ]] && command -v apt-get >/dev/null && apt-get update -qq && \
		DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $$missing >/dev/null; } || \
		{ echo "make deploy-check: install$$missing" >&2; exit 1; }
	@deploy/check.sh

.PHONY: clean
clean: ## remove what was built
	rm -rf bin dist bench/bench
