// Command slow tries what slow and dead clients do to servers: each row of its
// table is a client that reads or writes at a real pace, by raw sockets with
// small buffers, against this library over TCP, TLS, a unix socket and behind
// net/http, by Events and by a HandlerFunc, and against gorilla's and coder's
// library with the deadlines of their examples. Nearly all of it is waiting, so
// all rows run at the same time. It fails if a row of the library's doesn't hold.
//
//	go run ./cmd/slow -quick
//	go run ./cmd/slow -only 'takes nothing' -ways tls
package main

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/rawws/websocket/internal/peers/internal/child"
	"github.com/rawws/websocket/internal/peers/internal/report"
)

var subjects = []*subject{
	{"library", libraryWays, serveLibrary, func() room { return &libraryRoom{} }},
	{"gorilla", otherWays, serveGorilla, newMemberList},
	{"coder", otherWays, serveCoder, newMemberList},
}

type options struct {
	quick    bool
	only     *regexp.Regexp
	ways     *regexp.Regexp
	subjects []*subject
	md       string
}

// A try is a row with one library in one way, and how it went.
type try struct {
	row     *row
	subject *subject
	way     way
	err     error
}

func main() {
	child.Main()
	o := &options{}
	only := flag.String("only", "", "the rows, a regular expression")
	ways := flag.String("ways", "", `the library's ways, a regular expression: "tls", "tcp handler"`)
	names := flag.String("subjects", "library,gorilla,coder", "the libraries")
	flag.BoolVar(&o.quick, "quick", false, "only what takes less than 30 s")
	flag.StringVar(&o.md, "md", "", "write the table as Markdown to this file")
	flag.Parse()
	var err error
	if o.only, err = regexp.Compile(*only); err == nil {
		o.ways, err = regexp.Compile(*ways)
	}
	for _, s := range subjects {
		if slices.Contains(strings.Split(*names, ","), s.name) {
			o.subjects = append(o.subjects, s)
		}
	}
	if err == nil {
		err = o.run()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "slow:", err)
		os.Exit(1)
	}
}

// tries lists what is to be run.
func (o *options) tries() (all []*try) {
	for i := range rows {
		r := &rows[i]
		if !o.only.MatchString(r.who) || o.quick && !r.quick {
			continue
		}
		for _, s := range o.subjects {
			if r.own && s.name != "library" {
				continue
			}
			for _, w := range s.ways {
				if s.name == "library" && (!o.ways.MatchString(w.String()) || r.handler && !w.handler) {
					continue
				}
				all = append(all, &try{row: r, subject: s, way: w})
			}
		}
	}
	return all
}

func (o *options) run() error {
	all := o.tries()
	if len(all) == 0 {
		return errors.New("no row matches")
	}
	began := time.Now()
	var running sync.WaitGroup
	for _, t := range all {
		running.Go(func() {
			b := &bench{limits: t.row.limits, subject: t.subject, way: t.way, quick: o.quick}
			defer b.stop()
			t.err = t.row.run(b)
		})
		time.Sleep(10 * time.Millisecond) // they don't all begin in the same moment
	}
	running.Wait()
	t, failed := o.table(all)
	t.Notes = append(t.Notes, o.explanation(), fmt.Sprintf("%s; %s; %s; in %s.", child.Machine(),
		report.Versions("github.com/gorilla/websocket", "github.com/coder/websocket"),
		time.Now().UTC().Format("2 January 2006"), time.Since(began).Round(time.Second)))
	t.Text(os.Stdout)
	if o.md != "" {
		f, err := os.Create(o.md)
		if err != nil {
			return err
		}
		t.Markdown(f)
		if err := f.Close(); err != nil {
			return err
		}
	}
	return failed
}

// explanation says what a quick run makes shorter.
func (o *options) explanation() string {
	long := "Defaults, where a row names no setting; a long callback takes 75 s."
	if o.quick {
		long = "A quick run: feeds of 25 s; of a message of 16 MB what takes 24 s; callbacks of 8 s, with pings every second and 2 s for their answers."
	}
	return long + " The library is tried over TCP, TLS, a unix socket and behind net/http, by Events and by a HandlerFunc; " +
		"the others have the deadlines of their examples, 10 s for a write, a ping every 54 s."
}

// table makes a row of all tries of one. The error tells of each that the
// library failed.
func (o *options) table(all []*try) (*report.Table, error) {
	t := &report.Table{Columns: []string{"who", "what must happen"}}
	for _, s := range o.subjects {
		t.Columns = append(t.Columns, s.name)
	}
	var failed error
	for i := range rows {
		var line []string
		for _, s := range o.subjects {
			var of []*try
			for _, try := range all {
				if try.row == &rows[i] && try.subject == s {
					of = append(of, try)
				}
			}
			line = append(line, cell(of))
			for _, try := range of {
				if s.name == "library" && try.err != nil {
					failed = errors.Join(failed, fmt.Errorf("%s (%s): %w", rows[i].who, try.way, try.err))
				}
			}
		}
		if strings.Join(line, "") != "" {
			t.Add(append([]string{rows[i].who, rows[i].must}, line...)...)
		}
	}
	return t, failed
}

// cell says how the tries of one library went.
func cell(of []*try) string {
	var first error
	held := 0
	for _, t := range of {
		switch {
		case t.err == nil:
			held++
		case first == nil:
			first = t.err
		}
	}
	switch {
	case len(of) == 0:
		return ""
	case errors.Is(first, errNotOffered):
		return "not offered"
	case len(of) == 1 && first == nil:
		return "holds"
	case len(of) == 1:
		return fmt.Sprintf("%.60s", first.Error())
	case first == nil:
		return fmt.Sprintf("holds, %d ways", held)
	}
	return fmt.Sprintf("%.60s; %d of %d ways hold", first.Error(), held, len(of))
}
