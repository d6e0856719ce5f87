package peers

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os/exec"
	"testing"
	"time"

	"github.com/rawws/websocket/internal/deflate"
)

// A zlibCase is a line of what inflate.mjs reads.
type zlibCase struct {
	Bits     int      `json:"bits"`
	Payloads [][]byte `json:"payloads"`

	name     string
	messages [][]byte
}

// zlibMessages reach as far back as they can: what is repeated lies at each
// distance around a window's size.
func zlibMessages(r *rand.Rand) (messages [][]byte) {
	block := make([]byte, 100)
	for i := range block {
		block[i] = byte(r.Uint32())
	}
	for bits := 8; bits <= 15; bits++ {
		for _, d := range []int{-1, 0, 1} {
			m := append(bytes.Clone(block), make([]byte, 1<<bits+d-len(block))...)
			messages = append(messages, append(m, block...))
		}
	}
	for range 20 {
		messages = append(messages, jsonDocument(r, 200+r.IntN(1000)), nil)
	}
	return append(messages, words(r, 70_000), jsonDocument(r, 5000), bytes.Repeat(block, 700))
}

// TestZlib has Node's zlib decompress what ours compresses, with windows of
// exactly the size that was asked for, at each level, with contexts and
// without.
func TestZlib(t *testing.T) {
	r := rand.New(rand.NewPCG(2, 2))
	var cases []zlibCase
	for bits := deflate.MinBits; bits <= deflate.MaxBits; bits++ {
		for _, level := range []deflate.Level{deflate.Fast, deflate.Better} {
			messages := zlibMessages(r)
			kept := zlibCase{Bits: bits, name: fmt.Sprintf("%d bits, level %d, one context", bits, level), messages: messages}
			c := deflate.NewCompressor(bits, level)
			for i, m := range messages {
				payload := c.Append(nil, m[:len(m)/2], false) // a message in two pieces
				payload = c.Append(payload, m[len(m)/2:], true)
				kept.Payloads = append(kept.Payloads, payload)
				cases = append(cases, zlibCase{
					Bits: bits, Payloads: [][]byte{deflate.Append(nil, m, bits, level, true)},
					name: fmt.Sprintf("%d bits, level %d, message %d alone", bits, level, i), messages: [][]byte{m},
				})
			}
			cases = append(cases, kept)
		}
	}
	for i, answer := range inflateByNode(t, cases) {
		c := cases[i]
		if answer.Error != "" || len(answer.Messages) != len(c.messages) {
			t.Errorf("%s: zlib says %q after %d of %d messages", c.name, answer.Error, len(answer.Messages), len(c.messages))
			continue
		}
		for k, m := range c.messages {
			if !bytes.Equal(answer.Messages[k], m) {
				t.Errorf("%s: message %d of %d bytes came out as %d bytes", c.name, k, len(m), len(answer.Messages[k]))
			}
		}
	}
}

// TestZlibRefuses shows that TestZlib would see a window that isn't kept.
func TestZlibRefuses(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 3))
	message := jsonDocument(r, 100)
	message = append(append(bytes.Clone(message), make([]byte, 1000)...), message...)
	c := zlibCase{Bits: 9, Payloads: [][]byte{deflate.Append(nil, message, 15, deflate.Fast, true)}}
	if answer := inflateByNode(t, []zlibCase{c})[0]; answer.Error == "" {
		t.Errorf("zlib with a window of 2^9 bytes took a distance of 1,100")
	}
}

type zlibAnswer struct {
	Error    string   `json:"error"`
	Messages [][]byte `json:"messages"`
}

func inflateByNode(t *testing.T, cases []zlibCase) (answers []zlibAnswer) {
	t.Helper()
	var in bytes.Buffer
	for _, c := range cases {
		if err := json.NewEncoder(&in).Encode(c); err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "node", "testdata/node/inflate.mjs")
	cmd.Stdin = &in
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("node: %v\n%s", err, &stderr)
	}
	for line := range bytes.Lines(out) {
		var a zlibAnswer
		if err := json.Unmarshal(line, &a); err != nil {
			t.Fatal(err)
		}
		answers = append(answers, a)
	}
	if len(answers) != len(cases) {
		t.Fatalf("%d answers to %d cases\n%s", len(answers), len(cases), &stderr)
	}
	return answers
}
