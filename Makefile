FUZZTIME ?= 30s
GO       ?= go

.PHONY: check test layers test386 fuzz cover bench peers compare idle manyconns soak drain stuck broadcast

# What has to hold before anything lands.
check: fmt vet layers race test386

.PHONY: fmt vet race
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

# Each leaf compiles with nothing but the leaves below it.
LEAVES     = errors.go mask.go utf8.go
HANDSHAKE  = handshake.go handshake_list.go handshake_origin.go handshake_request.go
layers:
	$(GO) vet errors.go
	$(GO) vet mask.go
	$(GO) vet utf8.go
	$(GO) vet $(LEAVES) frame.go
	$(GO) vet $(LEAVES) $(HANDSHAKE)
	$(GO) vet $(LEAVES) $(HANDSHAKE) deflate.go inflate.go

# Without a bound, making one interesting input smaller takes up to a minute,
# which is longer than the whole run.
fuzz:
	@list=$$($(GO) test -list '^Fuzz' .) && targets=$$(echo "$$list" | grep ^Fuzz) || { echo "no fuzz targets: $$list"; exit 1; }; \
	for t in $$targets; do \
		echo "== $$t"; \
		$(GO) test -run '^$$' -fuzz "^$$t$$" -fuzztime $(FUZZTIME) -fuzzminimizetime 20x . || exit 1; \
	done

cover:
	$(GO) test -coverprofile=cover.out .
	$(GO) tool cover -func=cover.out | tail -1

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
