// Package websocket is a WebSocket server (RFC 6455, with permessage-deflate,
// RFC 7692) built directly on net.Conn, on the standard library alone.
//
//	err := websocket.ListenAndServe("127.0.0.1:8080", websocket.Events{
//		OnMessage: func(c *websocket.Conn, t websocket.MessageType, data []byte) {
//			c.WriteMessage(t, data)
//		},
//	})
//
// # The flow of a connection
//
// [Server.Serve] accepts a TCP connection. It reads the HTTP request from it,
// checks it by the RFC and the [Upgrader]'s policy (Host, Origin, OnUpgrade),
// and answers with 101, or with the status and the reason of a refusal. From the
// 101 on the same TCP connection carries frames. This is what the browser's page
// calls onopen, and Events.OnOpen is called.
//
// What the client sends arrives as masked frames. Their headers are checked
// before their payload is read; the payload is unmasked, text is checked for
// UTF-8, fragments are put together, and Events.OnMessage gets the whole
// message, or [Conn.ReadMessage] returns it. Pings are answered by themselves.
// [Conn.WriteMessage] sends a message back as one frame, without a mask.
//
// Either side ends it with a close frame, which the other answers
// ([Conn.Close]). Then the server closes the TCP connection, and
// Events.OnClose gets the [EndError] that says who ended it and why.
//
// There are four ways in: a [Server] with a listener of its own, a Server
// mounted on a mux of net/http ([Server.ServeHTTP]), [Upgrader.Upgrade] on any
// net.Conn, and [Upgrader.UpgradeHTTP] inside an http.Handler. With a Server
// there are two shapes of a [Handler]: [Events], whose functions are called as
// a browser calls its own, and [HandlerFunc], a function that reads in a loop
// and whose return closes the connection. With an Upgrader the caller has the
// [Conn] and does both itself.
//
// # Concurrency
//
// One goroutine at a time reads from a Conn: ReadMessage, AppendMessage,
// ReadJSON, NextReader with the reader it returned, Messages, and what [Stream]
// and CloseRead do. Under Events the library is that reader: there the reads return
// an error, and CloseRead does nothing.
//
// Any number of goroutines may call the rest at any time: WriteMessage,
// WriteJSON, WritePrepared, Send, Queued, NextWriter, Flush, Ping, Close,
// CloseNow, SetDeadline, SetReadDeadline, SetWriteDeadline, SetMaxMessageSize,
// Context, RTT, Subprotocol, LocalAddr, RemoteAddr, NetConn. Frames are never
// interleaved. The writer that NextWriter returned is used by one goroutine;
// other messages wait for its Close, control frames don't. Conn.Data isn't
// guarded: OnUpgrade and OnOpen may set it.
//
// OnOpen, OnMessage and OnClose of one connection are called one after the
// other, those of different connections at the same time. While OnMessage runs
// nothing else is read from its connection: no ping is answered and no close
// frame seen. A PreparedMessage, a Group and a Server may be used by any number
// of goroutines. An Upgrader and a Server's fields aren't changed once in use.
//
// The connection reads its pings and its close frame only while something
// reads. A HandlerFunc that only writes calls [Conn.CloseRead].
//
// # What is held back, and Flush
//
// The system has taken a message when its write returns, with one exception:
// while OnMessage runs and more whole frames of the same read wait behind its
// message, what is written to the connection is gathered, and leaves in one
// write when the last of them is handled, or when 16 KiB have come together. An
// OnMessage that goes on for long after it wrote calls [Conn.Flush]; without that
// it leaves within half a second. [Conn.Send] is the other way to write: it never
// waits, and what it queues leaves as fast as the peer takes it.
//
// That the peer's program has read a message, no WebSocket can tell; an
// application that must know sends answers of its own.
//
// # Errors
//
// A connection ends once, and its end is one [*EndError]: every read after it
// returns it, OnClose gets it, context.Cause of [Conn.Context] is it. It says
// who began, which codes and reasons went either way, whether the closing
// handshake was whole, and unwraps to the cause: a [*CloseError] (the peer's close
// frame), a [*ProtocolError] (a rule that it broke, with the section),
// net.ErrClosed (we closed), [ErrServerClosed] (Shutdown or Close of the Server),
// io.ErrUnexpectedEOF (the stream ended without a close frame),
// os.ErrDeadlineExceeded (a timeout), or the network's error. [CloseStatus] gives
// the code that a browser's onclose would get. A refused upgrade matches a
// [*HandshakeError] with the HTTP status.
//
// A write that fails makes every later write fail, but for a wrong argument and a
// deadline that had passed before it began, which send nothing. The reads go on
// until they find the end, so that what had arrived is delivered. Code that writes
// may therefore leave errors of WriteMessage to the reader. A read deadline that
// passes is an error after which reading may go on; under Events it ends the
// connection.
//
// # Limits
//
// What one connection may cost has limits, which hold for the zero value of
// [Upgrader] and [Server]; their fields tell. How many connections there may be,
// in all and of one client, is for you to say: see Server.MaxConns. A message
// that comes in has at most 1 MiB, counted after inflating, in at most 131,072
// fragments. Memory isn't allocated for a length that was only declared: at most
// 64 KiB ahead of what has come, or three times as much again. A handshake takes
// at most 10 s, OnUpgrade included, and its header section 16 KiB. A peer that
// makes no progress for 20 s after a ping, or takes nothing of a write for 10 s,
// is cut; one that keeps reading is not, however slowly: timeouts measure the
// time without progress. Pages of other origins are refused. Text that comes in
// is always UTF-8; text that goes out is the caller's word.
//
// # Memory of an idle connection
//
// On Linux an event loop serves the TCP and unix sockets of [Events], from accept
// to close: a connection that waits has no goroutine and no buffer. Callbacks may
// block all the same, others don't wait for them. Everywhere else, over TLS, and
// for a [HandlerFunc] a connection has one goroutine, and a second one after
// CloseRead. Its buffers are pooled and taken when bytes are there; but over TLS,
// on Windows and on a net.Conn of the application's it keeps one of 4 KiB, and
// crypto/tls has its own. No connection has a timer: one goroutine per Server looks
// after the pings and timeouts of all.
//
// The build tag noloop leaves the loop out.
//
// # Compression
//
// Upgrader.Compression turns permessage-deflate on for the clients that offer
// it, as browsers do. It saves bytes on the network and costs CPU time, and
// memory for what messages may refer to: see [Compression]. MaxMessageSize
// counts what comes out.
//
// # One message to many
//
// A [PreparedMessage] is framed, and compressed, once. [Group.Broadcast] gives
// it to every member and waits for none: what a socket doesn't take at once
// waits in the member's queue. A member whose queue is full, 1 MiB by default,
// is closed with 1008 or misses the message, as Upgrader.SlowPolicy says.
//
// # Looking at it
//
// [Server.Stats] has counters that are always on; [Server.Expvar] and
// [Server.MetricsHandler] publish them. Upgrader.Trace has hooks that see each
// request, answer and frame as it is on the wire, and [NewTextTrace] makes one
// that writes them for a person to read, bit by bit.
//
// # Examples, and tests of your own
//
// The examples run as tests, and are in files of their own: example_test.go,
// example_conn_test.go and example_group_test.go have one for most exported names,
// example_accept_test.go the ways in which clients say who they are and routes by
// path, example_apps_test.go and example_dashboard_test.go small whole
// applications. Programs with a page to open are in the directory examples.
// Package websockettest has a client for the tests of handlers.
//
// # What isn't here
//
// There is no client for production, no WebSocket over HTTP/2 (RFC 8441), and a
// Group lives as long as its process: examples/cluster shows how several share
// their rooms. Who comes from another library finds its names in
// docs/migrating.md.
//
// # Where to read what
//
// From the bytes up; each name is that of a file, and most have others beside
// them with the same beginning.
//
//   - internal/httphead, handshake.go: the HTTP request, and the answer to it
//   - upgrade.go, conn_handshake.go: the policy, and a handshake's way to its end
//   - frame.go, mask.go, internal/utf8x: a frame's header, its mask, text
//   - conn_read.go: the frame reader: frames to messages
//   - conn_write.go, conn_close.go: messages to frames, and the closing handshake
//   - conn.go, conn_time.go, sweep.go: a connection's state, and its time
//   - conn_queue.go, group.go: Send and Broadcast, with their queues
//   - events.go, conn_loop.go, server_loop.go, internal/netloop: callbacks, and the event loop
//   - conn_deflate.go, internal/deflate: compression
//   - server.go, limits.go, server_plain.go, clientip.go: accept, limits, HTTP, proxies
//   - errors.go, stats.go, trace.go, log.go: what one sees of it
package websocket
