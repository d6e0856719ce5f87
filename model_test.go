package websocket

import (
	"bytes"
	"compress/flate"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rawws/websocket/internal/deflate"
)

var modelRuns = flag.Int("model", 30, "how many random servers TestModel makes")

// modelWays are the ways to reach the servers.
var modelWays = []func(t *testing.T, s *Server) *peer{
	func(t *testing.T, s *Server) *peer { return serveTCP(t, s)() },
	func(t *testing.T, s *Server) *peer { return serveBehind(t, s)() },
	func(t *testing.T, s *Server) *peer { return dialTLS(t, serveTLS(t, s), clientTLS()) },
}

const modelWriters = 3 // the server's, of which the first reads; the next is the client

// modelMessage is the message number seq of one writer, the i-th of n that were
// given to one call. It names all that, so that a mixture shows.
func modelMessage(writer, seq, i, n, size int) []byte {
	head := fmt.Sprintf("%d %d %d %d %d ", writer, seq, i, n, size)
	return []byte(head + strings.Repeat(fmt.Sprintf("<%d.%d>", writer, seq*seq), 1+size/4)[:size])
}

// modelID is what p names; ok is false where p is no message of modelMessage's.
func modelID(p []byte) (writer, seq, i, n int, ok bool) {
	var size int
	fmt.Sscan(string(p[:min(len(p), 40)]), &writer, &seq, &i, &n, &size)
	return writer, seq, i, n, bytes.Equal(p, modelMessage(writer, seq, i, n, size))
}

// A modelWrite is what a writer was told of a message.
type modelWrite struct {
	seq    int
	err    error
	queued bool // by Send
}

// A modelConn is a connection, what its writers did and what its client saw.
type modelConn struct {
	c          *Conn
	p          *peer
	seq        [modelWriters]int
	wrote      [modelWriters][]modelWrite
	came       int // messages of the client's
	open       chan struct{}
	ended      chan error
	sending    sync.Mutex // guards the client's side of the stream, and what follows
	sent       int        // messages
	sentCode   CloseCode
	compressor *deflate.Compressor // nil without compression

	got    [][]byte
	closed []CloseCode
	window []byte // what came last
	err    error  // what ended the stream, or broke a rule
}

// act does one thing that a writer may do.
func (m *modelConn) act(writer int, rnd *rand.Rand) {
	next := func(i, n int) []byte {
		m.seq[writer]++
		sizes := []int{rnd.IntN(2), rnd.IntN(200), rnd.IntN(5000), 16370 + rnd.IntN(30), rnd.IntN(100_000)}
		return modelMessage(writer, m.seq[writer], i, n, sizes[rnd.IntN(len(sizes))])
	}
	wrote := &m.wrote[writer]
	note := func(err error, queued bool) { *wrote = append(*wrote, modelWrite{m.seq[writer], err, queued}) }
	switch rnd.IntN(5) {
	default:
		note(m.c.WriteMessage(BinaryMessage, next(0, 1)), false)
	case 1:
		note(m.c.WritePrepared(NewPreparedMessage(TextMessage, next(0, 1))), false)
	case 2:
		var ms []*PreparedMessage
		for i, n := 0, 1+rnd.IntN(3); i < n; i++ {
			ms = append(ms, NewPreparedMessage(BinaryMessage, next(i, n)))
		}
		note(m.c.Send(ms...), true)
	case 3:
		if w, err := m.c.NextWriter(TextMessage); err == nil {
			for p := next(0, 1); len(p) > 0 && err == nil; {
				n := min(len(p), 1+rnd.IntN(30_000))
				_, err = w.Write(p[:n])
				p = p[n:]
			}
			note(errors.Join(err, w.Close()), false)
		}
	}
}

// handler reads by OnMessage, or by a function that sets deadlines, and answers.
func (m *modelConn) handler(t *testing.T, events bool, rnd *rand.Rand) Handler {
	opened := func(c *Conn, _ *http.Request) {
		m.c = c
		close(m.open)
	}
	receive := func(_ *Conn, _ MessageType, p []byte) {
		m.came++
		if writer, seq, _, _, ok := modelID(p); !ok || writer != modelWriters || seq != m.came {
			t.Errorf("the server got %s, want the client's message %d", quote(p), m.came)
		}
		m.act(0, rnd)
	}
	if events {
		return Events{OnOpen: opened, OnMessage: receive, OnClose: func(_ *Conn, err error) { m.ended <- err }}
	}
	return HandlerFunc(func(c *Conn, r *http.Request) {
		opened(c, r)
		for end := (*EndError)(nil); end == nil; {
			c.SetReadDeadline(time.Now().Add(time.Duration(rnd.IntN(5000)) * time.Microsecond))
			if typ, p, err := c.ReadMessage(); err == nil {
				receive(c, typ, p)
			} else if errors.As(err, &end) {
				m.ended <- err
			}
		}
	})
}

// send writes a message of the client's, or its close frame, and then nothing more.
func (m *modelConn) send(frames []byte, code CloseCode) {
	m.sending.Lock()
	defer m.sending.Unlock()
	if m.sentCode != 0 {
		return
	}
	if _, err := m.p.nc.Write(frames); err == nil && code == 0 {
		m.sent++
	}
	m.sentCode = code
}

// speak sends n messages as a lawful client may: in fragments, compressed, with pings
// between.
func (m *modelConn) speak(n int, rnd *rand.Rand) {
	for seq := 1; seq <= n; seq++ {
		p := modelMessage(modelWriters, seq, 0, 1, rnd.IntN(1<<rnd.IntN(15)))
		deflates := m.compressor != nil && rnd.IntN(2) == 0
		if deflates {
			p = m.compressor.Append(nil, p, true)
		}
		cut := rnd.IntN(len(p) + 1)
		b := clientFrame(opBinary, cut == len(p), string(p[:cut]))
		if deflates {
			b = withRSV1(b)
		}
		if cut < len(p) {
			b = append(append(b, clientFrame(opPing, true, "?")...), clientFrame(opContinuation, true, string(p[cut:]))...)
		}
		m.send(b, 0)
	}
}

// listen reads to the end of the stream, and holds each frame against the rules.
func (m *modelConn) listen() {
	var message []byte
	inside, deflated := false, false
	for m.err == nil {
		m.p.nc.SetDeadline(time.Now().Add(patience)) // of a frame: all of them may take longer on a busy machine
		h, p, err := m.p.anyFrame()
		if m.err = err; err != nil {
			return
		}
		h.masked = !h.masked // checkHeader is about clients
		switch err := checkHeader(h, inside, m.compressor != nil); {
		case err != nil, len(m.closed) > 0:
			m.err = fmt.Errorf("unlawful frame %+v behind close frames %v: %v", h, m.closed, err)
		case h.opcode == opClose:
			code, _, _ := parseClosePayload([]byte(p))
			m.closed = append(m.closed, code)
			go m.send(closeFrame(code, ""), code) // who sends may wait for the server's reader
		case !h.opcode.control():
			if !inside {
				message, deflated = nil, h.rsv1
			}
			if message, inside = append(message, p...), !h.fin; h.fin {
				m.take(message, deflated)
			}
		}
	}
}

// take keeps a whole message, inflated by the standard library.
func (m *modelConn) take(p []byte, deflated bool) {
	if deflated {
		p = append(p, "\x00\x00\xff\xff\x01\x00\x00\xff\xff"...)
		p, m.err = io.ReadAll(flate.NewReaderDict(bytes.NewReader(p), m.window))
		m.window = append(m.window, p...)
		m.window = m.window[max(0, len(m.window)-32<<10):]
	}
	m.got = append(m.got, p)
}

// check holds what the client got against what the writers were told.
func (m *modelConn) check(t *testing.T, end *EndError, st Stats) {
	m.sending.Lock()
	defer m.sending.Unlock()
	last, came, before := [modelWriters]int{}, map[[2]int]bool{}, ""
	for _, p := range m.got {
		writer, seq, i, n, ok := modelID(p)
		if !ok || writer >= modelWriters || seq <= last[writer] {
			t.Fatalf("the client got %s, behind the numbers %d of the writers", quote(p), last)
		}
		if i > 0 && before != fmt.Sprint(writer, seq-1, i-1, n) {
			t.Errorf("the client got %s behind %q, and not together", quote(p), before)
		}
		before, last[writer], came[[2]int{writer, seq}] = fmt.Sprint(writer, seq, i, n), seq, true
	}
	for writer, wrote := range m.wrote {
		for _, w := range wrote {
			must := w.err == nil && (!w.queued || end.By == SideServer) // who closes wants no more of the queue
			if got := came[[2]int{writer, w.seq}]; must && !got || w.err == errClosing && got {
				t.Errorf("message %d of writer %d: %v, queued %t; has come %t", w.seq, writer, w.err, w.queued, got)
			}
		}
	}
	if m.err != io.EOF || len(m.closed) != 1 || m.closed[0] != end.Sent || end.Received != m.sentCode || !end.Clean {
		t.Errorf("the client sent %d, and read %d and then %v; the end: %+v", m.sentCode, m.closed, m.err, *end)
	}
	if end.By == SidePeer && m.came != m.sent || st.MessagesOut != uint64(len(m.got)) || st.MessagesIn > uint64(m.sent) {
		t.Errorf("the client sent %d messages and got %d; the server got %d and counted %d and %d out", m.sent, len(m.got), m.came, st.MessagesIn, st.MessagesOut)
	}
}

// Whatever goroutines and clients do: what arrives is lawful, nothing comes twice, mixed
// up or out of its writer's order, nothing is lost of which a write has returned nil, and
// the record of the end is what happened on the wire.
func TestModel(t *testing.T) {
	for seed := range *modelRuns {
		t.Run(fmt.Sprint(seed), func(t *testing.T) { runModel(t, rand.New(rand.NewPCG(uint64(seed), 0))) })
	}
}

func runModel(t *testing.T, rnd *rand.Rand) {
	another := func() *rand.Rand { return rand.New(rand.NewPCG(rnd.Uint64(), 0)) }
	m := &modelConn{open: make(chan struct{}), ended: make(chan error, 1)}
	s := &Server{Handler: m.handler(t, rnd.IntN(2) == 0, another()), Upgrader: Upgrader{PingInterval: -1, SendQueue: -1}}
	m.connect(t, s, rnd)
	var acts, listens sync.WaitGroup
	for writer, rnd := range []*rand.Rand{another(), another(), another()} {
		acts.Go(func() {
			for writer > 0 && rnd.IntN(30) > 0 {
				m.act(writer, rnd)
			}
			if writer == 0 {
				m.speak(40, rnd)
			}
		})
	}
	listens.Go(m.listen)
	if rnd.IntN(2) == 0 {
		acts.Wait()
	}
	code := []CloseCode{CloseNormal, CloseGoingAway, CloseNoStatus, 4999}[rnd.IntN(4)]
	how := rnd.IntN(4)
	switch how {
	case 0:
		m.c.CloseNow() // which loses what is on its way
	case 1:
		m.send(closeFrame(code, ""), code)
	default:
		m.c.Close(code, "")
	}
	listens.Wait()
	m.p.nc.Close()
	var end *EndError
	errors.As(<-m.ended, &end)
	acts.Wait()
	if how != 0 {
		m.check(t, end, s.Stats())
	}
}

// connect opens the connection, compressed or not.
func (m *modelConn) connect(t *testing.T, s *Server, rnd *rand.Rand) {
	if rnd.IntN(2) == 0 {
		m.compressor = deflate.NewCompressor(15, deflate.Fast)
		s.Upgrader.Compression = &Compression{ServerContext: true, Threshold: rnd.IntN(300) - 100, FrameSize: 1 << rnd.IntN(16)}
	}
	if m.p = modelWays[rnd.IntN(len(modelWays))](t, s); m.compressor != nil {
		m.p.handshakeDeflate("permessage-deflate")
	} else {
		m.p.handshake()
	}
	<-m.open
}
