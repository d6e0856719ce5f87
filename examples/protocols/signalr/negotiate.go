package signalr

import (
	"cmp"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"net/http"

	"github.com/rawws/websocket"
)

// connectionID is the one that others may see, made of the token that only the
// client has: a negotiation leaves nothing here, and any token is taken.
func connectionID(token string) string {
	sum := sha256.Sum256([]byte(cmp.Or(token, rand.Text()))) // a client may skip the negotiation
	return base64.RawURLEncoding.EncodeToString(sum[:16])
}

// ServeHTTP negotiates: the client learns its ID, that there are WebSockets and
// nothing else, and gets the token to open one.
func (h *Hub) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	token := rand.Text()
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	json.NewEncoder(w).Encode(map[string]any{
		"negotiateVersion": 1, "connectionId": connectionID(token), "connectionToken": token,
		"availableTransports": []any{map[string]any{"transport": "WebSockets", "transferFormats": []string{"Text", "Binary"}}},
	})
}

// OnUpgrade, for the Upgrader, refuses the token of a connection that is open.
func (h *Hub) OnUpgrade(r *http.Request, a *websocket.Accept) error {
	a.MaxMessageSize = maxMessage
	if _, open := h.clients.Load(connectionID(r.URL.Query().Get("id"))); open {
		return &websocket.HandshakeError{Status: http.StatusConflict, Reason: "the connection with this token is open"}
	}
	return nil
}
