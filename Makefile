FUZZTIME ?= 30s
GO       ?= go

.PHONY: check fmt vet test race test386 noloop layers fuzz cover bench \
	peers compare idle soak drain stuck broadcast manyconns sleepers slow

# What has to hold before anything lands.
check: fmt vet layers race test386 noloop

fmt:
	@test -z "$$(gofmt -l .)" || { gofmt -l .; echo "not gofmt'd"; exit 1; }

vet:
	$(GO) vet ./...

test:
	$(GO) test ./...

race:
	$(GO) test -race ./...

test386:
	GOARCH=386 $(GO) test ./...

# As on a system without the event loop, where a goroutine serves a connection.
noloop:
	$(GO) vet -tags noloop ./...
	$(GO) test -tags noloop ./...
	$(GO) test -race -tags noloop . ./websockettest

# The leaves that stayed here compile with nothing but the leaves below them.
# The compiler sees to it for those under internal/.
layers:
	$(GO) vet errors.go
	$(GO) vet mask.go
	$(GO) vet errors.go frame.go
	$(GO) vet errors.go handshake.go

# Every target there is, FUZZTIME each. Without a bound, making one interesting
# input smaller takes up to a minute, which is longer than the whole run.
fuzz:
	@ran=0; for d in $$(grep -rl --include='*_test.go' '^func Fuzz' . | xargs -n1 dirname | sort -u); do \
		list=$$($(GO) -C $$d test -list '^Fuzz' .) || { echo "$$list"; exit 1; }; \
		for t in $$(echo "$$list" | grep ^Fuzz); do \
			echo "== $$d $$t"; ran=$$((ran+1)); \
			$(GO) -C $$d test -run '^$$' -fuzz "^$$t$$" -fuzztime $(FUZZTIME) -fuzzminimizetime 20x . || exit 1; \
		done; \
	done; [ $$ran -gt 0 ] || { echo "no fuzz targets"; exit 1; }

# Of each package, by its own tests.
cover:
	$(GO) test -cover ./...

bench:
	$(GO) test -run '^$$' -bench . -benchmem .

# Against other libraries, in a module of its own. ARGS go to the command, as
# in: make compare ARGS=-quick
PEERS = cd internal/peers && $(GO) run

peers:
	cd internal/peers && $(GO) vet ./... && $(GO) test ./...

compare:
	$(PEERS) ./cmd/compare $(ARGS)

idle: CONNS ?= 15000
idle:
	$(PEERS) ./cmd/idle -conns $(CONNS) $(ARGS)

# Everything at random against a ledger; SEED=n repeats a run.
soak: CONNS ?= 5000
soak: DUR ?= 60s
soak:
	$(PEERS) ./cmd/soak -dur $(DUR) -conns $(CONNS) $(if $(SEED),-seed $(SEED)) $(ARGS)

# Ctrl-C of the echo example.
drain: CONNS ?= 5000
drain:
	$(PEERS) ./cmd/drain -conns $(CONNS) $(ARGS)

# What clients that don't read do to the others.
stuck: CONNS ?= 1000
stuck:
	$(PEERS) ./cmd/stuck -conns $(CONNS) $(ARGS)

# One message to many, and what slow receivers do to the others.
broadcast:
	$(PEERS) ./cmd/broadcast $(ARGS)

manyconns: CONNS ?= 80000
manyconns:
	$(PEERS) ./cmd/manyconns -conns $(CONNS) $(ARGS)

# Callbacks that block.
sleepers:
	$(PEERS) ./cmd/sleepers $(ARGS)

# Slow and dead clients, and who has to be cut; ARGS=-quick takes half a minute.
slow:
	$(PEERS) ./cmd/slow $(ARGS)
