package main

import (
	"bytes"
	"crypto/rand"
	"encoding/base64"
	"encoding/binary"
	"net"
	"net/url"
	"strconv"
	"time"
)

const (
	rawTimeout = 5 * time.Second
	rawPause   = 150 * time.Millisecond // so that each frame is a packet of its own
	rawText    = 1 << 10
	maxRaw     = 8 // that run at once, for all pages
)

// The first byte of a frame: FIN, the reserved bits, the opcode (RFC 6455,
// section 5.2).
const (
	fin          = 0x80
	rsv3         = 0x10
	continuation = 0x0
	text         = 0x1
	closing      = 0x8
	ping         = 0x9
)

// scripts are what the raw client can say that a page's script can't: the
// frames it writes, one after the other, once it is connected. All but the
// first two break a rule.
var scripts = map[string]func(words []byte) [][]byte{
	"fragments": func(words []byte) [][]byte {
		a, b := len(words)/3, 2*len(words)/3
		return [][]byte{masked(text, words[:a]), masked(fin|ping, []byte("between")),
			masked(continuation, words[a:b]), masked(fin|continuation, words[b:]), goodbye()}
	},
	"ping": func(words []byte) [][]byte {
		return [][]byte{masked(fin|ping, words[:min(len(words), 125)]), goodbye()}
	},
	"nomask": func(words []byte) [][]byte {
		n := min(len(words), 125)
		return [][]byte{append([]byte{fin | text, byte(n)}, words[:n]...)}
	},
	"reserved": func(words []byte) [][]byte { return [][]byte{masked(fin|rsv3|text, words)} },
	"opcode":   func(words []byte) [][]byte { return [][]byte{masked(fin|0x3, words)} },
	"utf8":     func([]byte) [][]byte { return [][]byte{masked(fin|text, []byte("fine until \xc3("))} },
	"longping": func([]byte) [][]byte { return [][]byte{masked(fin|ping, make([]byte, 126))} },
	"orphan":   func(words []byte) [][]byte { return [][]byte{masked(fin|continuation, words)} },
	"length": func([]byte) [][]byte { // 5, said in the 16 bits that are for 126 and more
		return [][]byte{append([]byte{fin | text, 0x80 | 126, 0, 5, 0, 0, 0, 0}, "Hello"...)}
	},
	"nokey": nil, // the request is wrong already
}

// masked frames payload as a client has to: with a new key, XORed byte by byte.
func masked(b0 byte, payload []byte) []byte {
	frame := []byte{b0}
	if n := len(payload); n < 126 {
		frame = append(frame, 0x80|byte(n))
	} else {
		frame = binary.BigEndian.AppendUint16(append(frame, 0x80|126), uint16(n))
	}
	var key [4]byte
	rand.Read(key[:])
	frame = append(frame, key[:]...)
	for i, b := range payload {
		frame = append(frame, b^key[i%4])
	}
	return frame
}

func goodbye() []byte { return masked(fin|closing, []byte{1000 >> 8, 1000 & 0xff}) }

// rawRequest asks for the upgrade as a browser would, but for an Origin.
func rawRequest(host string, who url.Values, withKey bool) string {
	key := ""
	if withKey {
		var nonce [16]byte
		rand.Read(nonce[:])
		key = "Sec-WebSocket-Key: " + base64.StdEncoding.EncodeToString(nonce[:]) + "\r\n"
	}
	return "GET /echo?" + who.Encode() + " HTTP/1.1\r\nHost: " + host + "\r\n" +
		"Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n" + key + "\r\n"
}

// startRaw runs a raw client for a page, if there is a place for one more.
func (in *inspector) startRaw(session string, cmd command) {
	script, ok := scripts[cmd.Script]
	if !ok {
		return
	}
	cmd.Client = cmd.Client[:min(len(cmd.Client), maxWho)]
	say := func(step, text string, b []byte) {
		in.feed.publish(session, event{Kind: "raw", At: now(), Client: cmd.Client, State: step, Text: text, Bytes: b})
	}
	select {
	case in.raws <- struct{}{}:
	default:
		say("busy", strconv.Itoa(maxRaw), nil)
		return
	}
	var frames [][]byte
	if script != nil {
		frames = script([]byte(cmd.Text[:min(len(cmd.Text), rawText)]))
	}
	request := rawRequest(in.addr, url.Values{"session": {session}, "client": {cmd.Client}}, script != nil)
	go func() {
		defer func() { <-in.raws }()
		runRaw(in.addr, request, frames, say)
	}()
}

// runRaw is a client in a few lines of TCP: it dials addr, writes the request
// and the frames, and says what it writes and reads.
func runRaw(addr, request string, frames [][]byte, say func(step, text string, b []byte)) {
	say("dial", addr, nil)
	nc, err := net.DialTimeout("tcp", addr, rawTimeout)
	if err != nil {
		say("end", err.Error(), nil)
		return
	}
	nc.SetDeadline(time.Now().Add(rawTimeout))
	say("request", request, nil)
	nc.Write([]byte(request))
	b := make([]byte, 4096)
	n, _ := nc.Read(b) // all of it: it is short, and written at once
	say("answer", string(b[:n]), nil)
	written := make(chan struct{})
	go func() {
		defer close(written)
		for _, frame := range frames {
			time.Sleep(rawPause)
			say("write", "", frame)
			if _, err := nc.Write(frame); err != nil {
				return // which shows in what is read
			}
		}
	}()
	for err == nil {
		if n, err = nc.Read(b); n > 0 {
			say("read", "", bytes.Clone(b[:n]))
		}
	}
	nc.Close()
	<-written
	say("end", err.Error(), nil)
}
