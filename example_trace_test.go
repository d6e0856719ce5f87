package websocket_test

import (
	"fmt"
	"io"
	"net"
	"os"

	"github.com/rawws/websocket"
)

// clientSide asks for the upgrade, sends "Hello" (the masked frame of RFC 6455,
// section 5.7), and leaves with code 1000.
func clientSide(nc net.Conn) {
	io.WriteString(nc, "GET / HTTP/1.1\r\nHost: example.com\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"+
		"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n")
	nc.Read(make([]byte, 1024))
	io.WriteString(nc, "\x81\x85\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58")
	io.WriteString(nc, "\x88\x82\x37\xfa\x21\x3d\x34\x12")
	io.Copy(io.Discard, nc)
}

// One event is enough for many questions; the others stay nil.
func ExampleTrace() {
	u := websocket.Upgrader{Trace: &websocket.Trace{
		Answer: func(id uint64, key, accept string, head []byte) {
			fmt.Printf("connection %d: key %s, accept %s\n", id, key, accept)
		},
		FrameRead: func(id uint64, f *websocket.TraceFrame) {
			fmt.Printf("connection %d: opcode %#x, % x XOR % x = %q\n", id, f.Opcode, f.Wire, f.Key, f.Payload)
		},
		Closed: func(id uint64, err error) {
			fmt.Printf("connection %d: %v\n", id, err)
		},
	}}
	server, client := net.Pipe()
	go clientSide(client)
	c, _, err := u.Upgrade(server)
	if err != nil {
		fmt.Println(err)
		return
	}
	for range c.Messages() {
	}
	// Output:
	// connection 1: key dGhlIHNhbXBsZSBub25jZQ==, accept s3pPLMBiTxaQ9kYGzzhZRbK+xOo=
	// connection 1: opcode 0x1, 7f 9f 4d 51 58 XOR 37 fa 21 3d = "Hello"
	// connection 1: opcode 0x8, 34 12 XOR 37 fa 21 3d = "\x03\xe8"
	// connection 1: websocket: peer closed with 1000
}

func ExampleNewTextTrace() {
	u := websocket.Upgrader{Trace: websocket.NewTextTrace(os.Stdout)}
	server, client := net.Pipe()
	go clientSide(client)
	c, _, err := u.Upgrade(server)
	if err != nil {
		return // the trace has shown it
	}
	for range c.Messages() {
	}
	// Output:
	// #1 accepted by pipe from pipe (pipe)
	// #1 request, 150 bytes
	//      | GET / HTTP/1.1
	//      | Host: example.com
	//      | Upgrade: websocket
	//      | Connection: Upgrade
	//      | Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==
	//      | Sec-WebSocket-Version: 13
	// #1 answer, 129 bytes
	//      | HTTP/1.1 101 Switching Protocols
	//      | Upgrade: websocket
	//      | Connection: Upgrade
	//      | Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=
	//      Sec-WebSocket-Accept was made from Sec-WebSocket-Key (RFC 6455, section 4.2.2):
	//      key      dGhlIHNhbXBsZSBub25jZQ==
	//      + GUID   258EAFA5-E914-47DA-95CA-C5AB0DC85B11
	//      SHA-1    b37a4f2cc0624f1690f64606cf385945b2bec4ea
	//      base64   s3pPLMBiTxaQ9kYGzzhZRbK+xOo=
	// #1 open
	// #1 read text
	//      byte 1   81  1.......  FIN, the last frame of its message
	//                   .000....  RSV1, RSV2, RSV3
	//                   ....0001  opcode 0x1
	//      byte 2   85  1.......  MASK, the key follows
	//                   .0000101  length 5
	//      key      37 fa 21 3d
	//      masked   7f 9f 4d 51 58
	//      payload  48 65 6c 6c 6f
	//      text     "Hello"
	// #1 read close
	//      byte 1   88  1.......  FIN, the last frame of its message
	//                   .000....  RSV1, RSV2, RSV3
	//                   ....1000  opcode 0x8
	//      byte 2   82  1.......  MASK, the key follows
	//                   .0000010  length 2
	//      key      37 fa 21 3d
	//      masked   34 12
	//      payload  03 e8
	//      code     1000 ""
	// #1 closing
	// #1 write close
	//      byte 1   88  1.......  FIN, the last frame of its message
	//                   .000....  RSV1, RSV2, RSV3
	//                   ....1000  opcode 0x8
	//      byte 2   02  0.......  no MASK
	//                   .0000010  length 2
	//      payload  03 e8
	//      code     1000 ""
	// #1 closed, clean (1000 sent, 1000 received): websocket: peer closed with 1000
}
