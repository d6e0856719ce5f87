package httphead

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// A requestCase is a request from testdata/requests, and what the parser makes
// of it. The README in testdata/handshake of the root, whose tests read these
// files too, describes the format; its settings that aren't for a parser stay
// out of sight here.
type requestCase struct {
	name   string
	limits [3]int
	rest   int
	after  int
	sent   []byte
	status int // 101 if the request is accepted
	reason string
}

// upgradeFields is what {upgrade} stands for.
const upgradeFields = "Upgrade: websocket\r\nConnection: Upgrade\r\n" +
	"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13"

// loadRequests returns the cases of all files. A file with nothing in it is a
// fault of the test, and not a success.
func loadRequests(t testing.TB) (all []requestCase) {
	t.Helper()
	files, err := filepath.Glob("testdata/requests/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatalf("no files in testdata/requests (%v)", err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for i, part := range strings.Split("\n"+string(text), "\n# ")[1:] {
			name, lines, _ := strings.Cut(part, "\n")
			c := requestCase{name: fmt.Sprintf("%s, case %d: %s", filepath.Base(file), i+1, name)}
			for line := range strings.SplitSeq(lines, "\n") {
				c.addLine(t, line)
			}
			if len(c.sent) == 0 || c.status == 0 || c.status != 101 && c.reason == "" || c.after > len(c.sent) {
				t.Fatalf("%s: %d bytes sent, answer %d %q, after %d", c.name, len(c.sent), c.status, c.reason, c.after)
			}
			all = append(all, c)
		}
	}
	if len(all) < len(files) {
		t.Fatalf("%d cases in %d files", len(all), len(files))
	}
	return all
}

// addLine adds a line of the file to the case.
func (c *requestCase) addLine(t testing.TB, line string) {
	t.Helper()
	mark, rest := line, ""
	if len(line) > 1 {
		mark, rest = line[:1], strings.TrimPrefix(line[1:], " ")
	}
	var err error
	switch mark {
	case "=":
		switch name, value, _ := strings.Cut(rest, " "); name {
		case "limits":
			_, err = fmt.Sscan(value, &c.limits[0], &c.limits[1], &c.limits[2])
		case "rest":
			c.rest, err = strconv.Atoi(value)
		case "after":
			c.after, err = strconv.Atoi(value)
		}
	case ">":
		end := "\r\n"
		if slashes := len(rest) - len(strings.TrimRight(rest, `\`)); slashes%2 == 1 {
			rest, end = rest[:len(rest)-1], ""
		}
		c.sent = append(append(c.sent, expand(t, rest)...), end...)
	case "<":
		switch status, text, _ := strings.Cut(strings.TrimPrefix(rest, "HTTP/1.1 "), " "); {
		case c.status == 0:
			c.status, err = strconv.Atoi(status)
			c.reason = text
		case c.status != http.StatusSwitchingProtocols:
			c.reason = rest // of an answer that is given whole, its last line
		}
	}
	if err != nil {
		t.Fatalf("%s: line %q: %v", c.name, line, err)
	}
}

var repeated = regexp.MustCompile(`\{(\d+)\*([^{}]*)\}`)

// expand undoes the escapes of a line and what stands in braces.
func expand(t testing.TB, line string) string {
	t.Helper()
	s, err := strconv.Unquote(`"` + strings.ReplaceAll(line, `"`, `\"`) + `"`)
	if err != nil {
		t.Fatalf("line %q: %v", line, err)
	}
	s = strings.ReplaceAll(s, "{upgrade}", upgradeFields)
	for repeated.MatchString(s) {
		s = repeated.ReplaceAllStringFunc(s, func(m string) string {
			parts := repeated.FindStringSubmatch(m)
			n, err := strconv.Atoi(parts[1])
			if err != nil {
				t.Fatalf("line %q: %v", line, err)
			}
			return strings.Repeat(parts[2], n)
		})
	}
	return s
}

func (c *requestCase) parser() *Parser {
	return &Parser{MaxLine: c.limits[0], MaxHeader: c.limits[1], MaxHeaders: c.limits[2]}
}

// parse feeds the parser with what was sent up to each of the ends.
func (c *requestCase) parse(ends ...int) (r *http.Request, n int, err error) {
	p := c.parser()
	for _, end := range ends {
		if r, n, err = p.Parse(c.sent[:end:end]); n != 0 || err != nil {
			break
		}
	}
	return r, n, err
}

func TestRequests(t *testing.T) {
	var used Memory
	for _, c := range loadRequests(t) {
		r, n, err := c.parse(len(c.sent))
		p := c.parser()
		p.Memory = &used
		if gotR, gotN, gotErr := p.Parse(c.sent); gotN != n || !reflect.DeepEqual(gotR, r) || !reflect.DeepEqual(gotErr, err) {
			t.Errorf("%s: Parse(%q) = %v, %d, %v in the memory of the request before; want %v, %d, %v", c.name, c.sent, gotR, gotN, gotErr, r, n, err)
		}
		switch {
		case c.status == http.StatusSwitchingProtocols && (err != nil || n != len(c.sent)-c.rest):
			t.Errorf("%s: Parse(%q) = %d, %v; want %d", c.name, c.sent, n, err, len(c.sent)-c.rest)
		case c.status == http.StatusSwitchingProtocols:
			compareWithNetHTTP(t, c.name, c.sent, r, n)
		default:
			e, ok := err.(*Error)
			if want := (Error{c.status, c.reason}); !ok || *e != want || e.Error() != c.reason {
				t.Errorf("%s: Parse(%q) = %d, %#v; want %#v", c.name, c.sent, n, err, want)
			}
		}
		if c.after > 0 {
			if _, n, err := c.parse(c.after - 1); n != 0 || err != nil {
				t.Errorf("%s: Parse(%q) = %d, %v; want more to be asked for", c.name, c.sent[:c.after-1], n, err)
			}
			if _, _, err := c.parse(c.after); err == nil {
				t.Errorf("%s: Parse(%q) = nil; want it to be refused by now", c.name, c.sent[:c.after])
			}
		}
	}
}
