package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"log"
	"math/big"
	"net"
	"time"
)

// tlsConfig is nil when the flags ask for no TLS. The version and the protocol
// are the library's defaults.
func tlsConfig(o *options) (*tls.Config, error) {
	var cert tls.Certificate
	var err error
	switch {
	case o.tlsSelfSigned:
		cert, err = selfSigned(o.addr)
	case o.tlsCert != "":
		cert, err = tls.LoadX509KeyPair(o.tlsCert, o.tlsKey)
	default:
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return &tls.Config{Certificates: []tls.Certificate{cert}}, nil
}

// selfSigned makes a certificate for a week, for localhost and the host of
// addr. Nothing is written to disk: it is gone with the process.
func selfSigned(addr string) (tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return tls.Certificate{}, err
	}
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		return tls.Certificate{}, err
	}
	template := &x509.Certificate{
		SerialNumber: serial,
		Subject:      pkix.Name{CommonName: "websocket echo, self-signed"},
		NotBefore:    time.Now().Add(-time.Hour), // a client's clock may be behind
		NotAfter:     time.Now().Add(7 * 24 * time.Hour),
		KeyUsage:     x509.KeyUsageDigitalSignature,
		ExtKeyUsage:  []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		DNSNames:     []string{"localhost"},
		IPAddresses:  []net.IP{net.IPv4(127, 0, 0, 1), net.IPv6loopback},
	}
	if host, _, err := net.SplitHostPort(addr); err == nil {
		if ip := net.ParseIP(host); ip != nil {
			template.IPAddresses = append(template.IPAddresses, ip)
		} else if host != "" {
			template.DNSNames = append(template.DNSNames, host)
		}
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		return tls.Certificate{}, err
	}
	leaf, err := x509.ParseCertificate(der)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}, err
}

// explainSelfSigned says how to get past the warnings that such a certificate
// rightly causes.
func explainSelfSigned(c *tls.Config, addr net.Addr) {
	leaf := c.Certificates[0].Leaf
	pin := sha256.Sum256(leaf.RawSubjectPublicKeyInfo)
	log.Printf("the certificate is self-signed, valid until %s", leaf.NotAfter.Format(time.DateTime))
	log.Printf("  browser:  open https://%s/ and accept the warning; the socket then uses the same exception", addr)
	log.Printf("  curl:     curl --insecure https://%s/", addr)
	log.Printf("  chromium: chromium --ignore-certificate-errors-spki-list=%s", base64.StdEncoding.EncodeToString(pin[:]))
}
