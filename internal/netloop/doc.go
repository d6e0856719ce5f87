// Package netloop serves TCP and unix sockets by an event loop, on Linux: a
// socket that is quiet costs its descriptor and about 100 bytes, and no
// goroutine. Its callbacks may block.
//
// It is for connections that are many, and whose handler can stop at any byte
// and go on later: a WebSocket reader. It knows bytes and events, and must never
// know of frames, handshakes or timeouts of a protocol.
//
// # How it works
//
// All sockets are in one epoll set, edge-triggered and registered once; none of
// them is known to Go's poller. The set's own descriptor is, so that no thread
// blocks. One goroutine at a time polls: it takes one event, passes the polling
// on, and calls the handler itself (leader and follower). Where handlers are
// quick, one goroutine for each processor does everything without a switch;
// where one blocks, another has taken over already.
//
// A handler never runs twice at the same time for one socket, and no event is
// lost: what happens while it runs makes it run once more.
//
// A descriptor is closed when the last call that uses it has returned, so that
// none can reach a new socket that got the same number; an event that was taken
// for the old one tells so by its generation.
package netloop
