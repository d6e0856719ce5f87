// Fromscratch is a WebSocket server in one file, without the library: a TCP
// socket, a few lines of text, and then frames. It sends back what it gets.
//
//	go run ./examples/fromscratch # and open http://127.0.0.1:9005/
//
// It is for reading, from step 1 to step 12, and for nothing else: the README
// beside it lists what it gets wrong, and which file of the library gets it
// right.
package main

import (
	"bufio"
	"crypto/sha1"
	"encoding/base64"
	"encoding/binary"
	"flag"
	"fmt"
	"io"
	"log"
	"net"
	"strings"
)

func main() {
	addr := flag.String("addr", "127.0.0.1:9005", "listen on `host:port`")
	flag.Parse()
	// 1. socket: ask the system for a number that stands for a TCP socket.
	// 2. bind: give it an address and a port.
	// 3. listen: from here on the system makes connections, and lines them up.
	ln, err := net.Listen("tcp", *addr) // it does all three
	if err != nil {
		log.Fatal(err)
	}
	log.Printf("1-3 listening: open http://%v/ in a browser; Ctrl-C ends", ln.Addr())
	log.Fatal(serve(ln))
}

func serve(ln net.Listener) error {
	for {
		// 4. accept: take the next one, which is a socket of its own.
		nc, err := ln.Accept()
		if err != nil {
			return err
		}
		log.Printf("4 accept: %v", nc.RemoteAddr())
		go handle(nc)
	}
}

// handle is the life of one connection.
func handle(nc net.Conn) {
	// 12. close: the TCP connection ends, and with it everything.
	defer log.Printf("12 close: %v", nc.RemoteAddr())
	defer nc.Close()
	r := bufio.NewReader(nc)

	key, err := readRequest(r)
	if err != nil {
		return
	}
	if key == "" { // it doesn't want a WebSocket: then it is for the page
		fmt.Fprintf(nc, "HTTP/1.1 200 OK\r\nContent-Type: text/html; charset=utf-8\r\n"+
			"Content-Length: %d\r\nConnection: close\r\n\r\n%s", len(page), page)
		return
	}
	if err := answer(nc, key); err != nil {
		return
	}

	// In the browser this is onopen. No HTTP any more: frames, both ways.
	for {
		opcode, payload, err := readFrame(r)
		if err != nil || opcode == closing {
			return
		}
		if opcode >= closing {
			continue // a ping or a pong
		}
		// This is what onmessage is in the browser.
		log.Printf("the message: %.60q", payload)
		if err := writeFrame(nc, opcode, payload); err != nil {
			return
		}
	}
}

// 5. Read the text: lines of HTTP up to an empty one. The one that matters is
// Sec-WebSocket-Key.
func readRequest(r *bufio.Reader) (key string, err error) {
	for {
		line, err := r.ReadString('\n')
		if err != nil {
			return "", err
		}
		line = strings.TrimSpace(line)
		log.Printf("5 read the text: %s", line)
		if line == "" {
			return key, nil
		}
		name, value, _ := strings.Cut(line, ":")
		if strings.EqualFold(name, "Sec-WebSocket-Key") {
			key = strings.TrimSpace(value)
		}
	}
}

// 6. Answer it: 101, and a value made from the key, by which the client sees
// that somebody has read its request who knows what a WebSocket is.
func answer(w io.Writer, key string) error {
	sum := sha1.Sum([]byte(key + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"))
	accept := base64.StdEncoding.EncodeToString(sum[:])
	log.Printf("6 answer it: 101, %s", accept)
	_, err := fmt.Fprintf(w, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n"+
		"Connection: Upgrade\r\nSec-WebSocket-Accept: %s\r\n\r\n", accept)
	return err
}

// The first byte of a frame: one bit that says that it is the last of its
// message, three that are 0, and four that say what it is.
const (
	fin     = 0x80
	closing = 0x8 // 1 is text, 2 is binary, 9 a ping, 10 a pong
)

// readFrame takes the next frame off the stream. TCP gives bytes as they come,
// half a frame or three of them, so each step asks for exactly what it needs.
func readFrame(r io.Reader) (opcode byte, payload []byte, err error) {
	// 7. Two bytes: what it is, and how long.
	var head [2]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return 0, nil, err
	}
	opcode = head[0] & 0x0f

	// 8. The length: seven bits, or the next two bytes, or the next eight.
	length := uint64(head[1] & 0x7f)
	if more := map[uint64]int{126: 2, 127: 8}[length]; more > 0 {
		var long [8]byte
		if _, err := io.ReadFull(r, long[8-more:]); err != nil {
			return 0, nil, err
		}
		length = binary.BigEndian.Uint64(long[:])
	}
	var key [4]byte
	if masked := head[1]&0x80 != 0; masked {
		if _, err := io.ReadFull(r, key[:]); err != nil {
			return 0, nil, err
		}
	}

	// 9. Exactly so many bytes, and no more: behind them begins the next frame.
	payload = make([]byte, length)
	if _, err := io.ReadFull(r, payload); err != nil {
		return 0, nil, err
	}

	// 10. Unmask: each byte XOR one of the key's four, over and over.
	for i := range payload {
		payload[i] ^= key[i%4]
	}
	log.Printf("7-10 a frame: % x, length %d, key % x", head, length, key)
	return opcode, payload, nil
}

// 11. Frame the answer, without a mask: a server's frames have none.
func writeFrame(w io.Writer, opcode byte, payload []byte) error {
	frame := []byte{fin | opcode}
	switch n := len(payload); {
	case n < 126:
		frame = append(frame, byte(n))
	case n < 1<<16:
		frame = binary.BigEndian.AppendUint16(append(frame, 126), uint16(n))
	default:
		frame = binary.BigEndian.AppendUint64(append(frame, 127), uint64(n))
	}
	log.Printf("11 frame the answer: % x and %d bytes", frame, len(payload))
	_, err := w.Write(append(frame, payload...))
	return err
}

// page is the other end: a browser's WebSocket with its four events.
const page = `<!doctype html>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>From scratch</title>
<link rel="icon" href="data:,">
<form><input id="text" value="Hello" autocomplete="off"> <button>send</button> <button type="button" id="close">close</button></form>
<pre id="log"></pre>
<script>
const log = (line) => document.getElementById("log").append(line + "\n");
const ws = new WebSocket("ws://" + location.host + "/");
ws.onopen = () => log("onopen");
ws.onmessage = (e) => log("onmessage " + e.data);
ws.onerror = () => log("onerror");
ws.onclose = (e) => log("onclose " + e.code + (e.wasClean ? ", clean" : ", not clean"));
document.forms[0].onsubmit = () => { ws.send(document.getElementById("text").value); return false; };
document.getElementById("close").onclick = () => ws.close(1000);
</script>
`
