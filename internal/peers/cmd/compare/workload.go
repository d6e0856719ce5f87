package main

import (
	"bytes"
	"math/rand/v2"
	"strings"

	"github.com/rawws/websocket/internal/peers/internal/echo"
	"github.com/rawws/websocket/internal/peers/internal/load"
)

// A workload is one row of measurements. Messages are counted, not timed, so
// that every server does the same work.
type workload struct {
	Name     string
	Title    string
	Conns    int
	Pipeline int
	Messages int
	Payloads func() [][]byte
	Text     bool // text messages, checked for UTF-8 by every server but rawtcp
	Deflate  bool
	Takeover bool // by the servers that know it, beside themselves without
	Upgrades bool // messages are whole connections
	Sources  int
}

var workloads = []workload{
	{Name: "small100", Title: "echo, 100 connections, 125 B", Conns: 100, Messages: 200_000, Payloads: binary(125)},
	{Name: "pipelined16", Title: "the same, 16 pipelined", Conns: 100, Pipeline: 16, Messages: 800_000, Payloads: binary(125)},
	{Name: "1KiB", Title: "100 connections, 1 KiB", Conns: 100, Messages: 150_000, Payloads: binary(1 << 10)},
	{Name: "64KiB", Title: "16 connections, 64 KiB", Conns: 16, Messages: 20_000, Payloads: binary(64 << 10)},
	{Name: "1MiB", Title: "4 connections, 1 MiB", Conns: 4, Messages: 1_500, Payloads: binary(1 << 20)},
	{Name: "text64KiB", Title: "16 connections, 64 KiB of multibyte text, validated", Conns: 16, Messages: 8_000, Payloads: text(64 << 10), Text: true},
	{Name: "conns5000", Title: "5,000 connections, 125 B", Conns: 5000, Messages: 150_000, Payloads: binary(125), Sources: 4},
	{Name: "handshake", Title: "connect, upgrade, close", Conns: 64, Messages: 12_000, Upgrades: true, Sources: 200},
	{Name: "deflate1KiB", Title: "100 connections, 1 KiB of JSON, permessage-deflate", Conns: 100, Messages: 30_000, Payloads: documents(16, 1<<10), Text: true, Deflate: true},
	// More documents than the window of 32 KiB holds.
	{Name: "takeover1KiB", Title: "the same, context takeover both ways where there is any", Conns: 100, Messages: 30_000, Payloads: documents(64, 1<<10), Text: true, Deflate: true, Takeover: true},
}

// variants are what a server does of a workload: with takeover first, where it
// knows that, with windows of that many bits.
func (w workload) variants(s echo.Server, bits int) (all []workload) {
	if w.Deflate && !s.Deflates && !s.Raw {
		return nil
	}
	if w.Takeover && (s.Raw || s.Takeover && (s.Windows || bits == 15)) {
		all = append(all, w)
	}
	if !w.Takeover || !s.Raw {
		w.Takeover = false
		all = append(all, w)
	}
	return all
}

// random gives every run the same bytes.
func random() *rand.Rand { return rand.New(rand.NewPCG(6455, 7692)) }

func binary(size int) func() [][]byte {
	return func() [][]byte {
		r, p := random(), make([]byte, size)
		for i := range p {
			p[i] = byte(r.Uint32())
		}
		return [][]byte{p}
	}
}

// text mixes scripts as a conversation of several languages does: runes of
// one, two, three and four bytes.
func text(size int) func() [][]byte {
	const sample = "Съешь же ещё этих мягких французских булок, да выпей чаю. 色は匂へど散りぬるを我が世誰ぞ常ならむ。" +
		"Grüße aus Österreich. 天地玄黃，宇宙洪荒，日月盈昃。 다람쥐 헌 쳇바퀴에 타고파. 👩‍🚀🚀✨ Ξεσκεπάζω τὴν ψυχοφθόρα βδελυγμία. "
	return func() [][]byte {
		p := []byte("00000000 " + strings.Repeat(sample, size/len(sample)+1))
		end := size
		for p[end]&0xc0 == 0x80 { // not inside a rune
			end--
		}
		p = p[:end]
		return [][]byte{append(p, bytes.Repeat([]byte{'.'}, size-end)...)}
	}
}

// documents are n JSON texts, as an API sends them.
func documents(n, size int) func() [][]byte {
	return func() [][]byte { return load.Documents(n, size) }
}
