// Package websocket is a WebSocket server (RFC 6455) built directly on net.Conn.
package websocket
