package peers

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"math/big"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rawws/websocket"
)

// A variant is a way to run the server.
type variant struct {
	blocking bool // HandlerFunc and ReadMessage instead of Events
	tls      bool
	deflate  bool
}

func (v variant) String() string {
	parts := []string{"events"}
	if v.blocking {
		parts[0] = "blocking"
	}
	if v.tls {
		parts = append(parts, "tls")
	}
	if v.deflate {
		parts = append(parts, "deflate")
	}
	return strings.Join(parts, "-")
}

// variants lists every combination.
var variants = func() []variant {
	var all []variant
	for _, deflate := range []bool{false, true} {
		for _, tls := range []bool{false, true} {
			all = append(all, variant{false, tls, deflate}, variant{true, tls, deflate})
		}
	}
	return all
}()

// A target is a running server that echoes, obeys "close:CODE:REASON" and
// "ping:PAYLOAD", and reports how each connection ended.
type target struct {
	url  string
	ends chan error
	root *x509.CertPool
}

func (s *target) tls() *tls.Config {
	if s.root == nil {
		return nil
	}
	return &tls.Config{RootCAs: s.root}
}

// nextEnd waits for a connection to end and returns the error the server saw.
func (s *target) nextEnd(t *testing.T) error {
	t.Helper()
	select {
	case err := <-s.ends:
		return err
	case <-time.After(patience):
		t.Fatalf("no connection ended within %v", patience)
		return nil
	}
}

func startTarget(t *testing.T, v variant) *target {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &target{ends: make(chan error, 1024)}
	scheme := "ws"
	if v.tls {
		cert, root := certificate(t)
		s.root, scheme = root, "wss"
		ln = tls.NewListener(ln, &tls.Config{Certificates: []tls.Certificate{cert}, NextProtos: []string{"http/1.1"}})
	}
	s.url = scheme + "://" + ln.Addr().String() + "/"
	srv := &websocket.Server{Handler: s.handler(v.blocking)}
	srv.Upgrader.MaxMessageSize = 8 << 20
	srv.Upgrader.Subprotocols = []string{"chat.v2", "chat.v1"}
	if v.deflate {
		srv.Upgrader.Compression = &websocket.Compression{Threshold: -1, ServerContext: true, WindowBits: 15} // what a client asks for is the bound
	}
	served := make(chan error, 1)
	go func() { served <- srv.Serve(ln) }()
	t.Cleanup(func() {
		srv.Close()
		if err := <-served; !errors.Is(err, websocket.ErrServerClosed) {
			t.Errorf("Serve returned %v; want ErrServerClosed", err)
		}
	})
	return s
}

func (s *target) handler(blocking bool) websocket.Handler {
	if !blocking {
		return websocket.Events{
			OnMessage: func(c *websocket.Conn, t websocket.MessageType, p []byte) { obey(c, t, p) },
			OnClose:   func(_ *websocket.Conn, err error) { s.ends <- err },
		}
	}
	return websocket.HandlerFunc(func(c *websocket.Conn, _ *http.Request) {
		for {
			t, p, err := c.ReadMessage()
			if err != nil {
				s.ends <- err
				return
			}
			obey(c, t, p)
		}
	})
}

// obey answers one message. An error of a write is seen again by the next read.
func obey(c *websocket.Conn, t websocket.MessageType, p []byte) {
	verb, rest, _ := strings.Cut(string(p[:min(len(p), 256)]), ":")
	switch {
	case t != websocket.TextMessage:
	case verb == "close":
		code, reason, _ := strings.Cut(rest, ":")
		if n, err := strconv.Atoi(code); err == nil {
			c.Close(websocket.CloseCode(n), reason)
			return
		}
	case verb == "ping":
		c.Ping([]byte(rest))
	}
	c.WriteMessage(t, p)
}

// certificate makes a self-signed certificate for 127.0.0.1, once.
func certificate(t *testing.T) (tls.Certificate, *x509.CertPool) {
	t.Helper()
	c, err := selfSigned()
	if err != nil {
		t.Fatal(err)
	}
	root := x509.NewCertPool()
	root.AddCert(c.Leaf)
	return c, root
}

var selfSigned = sync.OnceValues(func() (tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return tls.Certificate{}, err
	}
	template := &x509.Certificate{
		SerialNumber:          big.NewInt(1),
		Subject:               pkix.Name{CommonName: "interoperability test"},
		NotBefore:             time.Now().Add(-time.Hour),
		NotAfter:              time.Now().Add(24 * time.Hour),
		IPAddresses:           []net.IP{net.IPv4(127, 0, 0, 1)},
		IsCA:                  true,
		BasicConstraintsValid: true,
		KeyUsage:              x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		return tls.Certificate{}, err
	}
	leaf, err := x509.ParseCertificate(der)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}, err
})
