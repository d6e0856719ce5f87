// Inspect shows what happens between new WebSocket(url) and a server: on the
// left what a page's script does and hears, on the right what the server does
// at that moment, down to the bits of each frame.
//
//	go run ./examples/inspect # and open http://127.0.0.1:9003/
//
// It is for one's own machine: whoever can open the page also sees the frames
// of clients that aren't pages. It answers to the machine's addresses and to
// localhost, and to the name that -addr has: a name that a page of another site
// has made point here is refused.
package main

import (
	"flag"
	"log"
	"net"
)

func main() {
	addr := flag.String("addr", "127.0.0.1:9003", "listen on `host:port`")
	flag.Parse()
	ln, err := net.Listen("tcp", *addr)
	if err != nil {
		log.Fatal(err)
	}
	log.Printf("open http://%v/ in a browser; Ctrl-C ends", ln.Addr())
	name, _, _ := net.SplitHostPort(*addr) // what could be listened on could be split
	log.Fatal(newServer(ln, name).Serve(ln))
}
