package main

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/rawws/websocket/internal/peers/internal/child"
	"github.com/rawws/websocket/internal/peers/internal/echo"
	"github.com/rawws/websocket/internal/peers/internal/report"
)

// A series is one server under one workload, a sample for each round.
type series struct {
	server  echo.Server
	work    workload // in the variant that the server runs
	samples []sample
	calls   *calls
}

// An outcome is one workload.
type outcome struct {
	workload
	rounds   int
	messages int
	servers  []*series
}

// name tells a server with context takeover from itself without.
func (s *series) name() string {
	if s.work.Takeover && !s.server.Raw {
		return s.server.Name + "-takeover"
	}
	return s.server.Name
}

func (s *series) median(of func(sample) time.Duration) float64 {
	var v []float64
	for _, m := range s.samples {
		v = append(v, float64(of(m)))
	}
	return report.Median(v)
}

func (s *series) cpu() float64 { return s.median(func(m sample) time.Duration { return m.CPU }) }

// spread returns the smallest and the largest CPU time of the rounds.
func (s *series) spread() (lo, hi time.Duration) {
	lo = s.samples[0].CPU
	for _, m := range s.samples {
		lo, hi = min(lo, m.CPU), max(hi, m.CPU)
	}
	return lo, hi
}

// ratio is the median of the rounds' own ratios: what disturbs a whole round
// cancels.
func (s *series) ratio(to *series) float64 {
	var v []float64
	for i, m := range s.samples {
		v = append(v, float64(m.CPU)/float64(to.samples[i].CPU))
	}
	return report.Median(v)
}

// find gives the first series of that server: the one with context takeover, if
// there is any.
func (o *outcome) find(name string) *series {
	for _, s := range o.servers {
		if s.server.Name == name {
			return s
		}
	}
	return nil
}

// bestPeer is the cheapest library that isn't ours. The references are none.
func (o *outcome) bestPeer() *series {
	var best *series
	for _, s := range o.servers {
		if s.server.Ours || !s.server.Engine {
			continue
		}
		if best == nil || s.cpu() < best.cpu() {
			best = s
		}
	}
	return best
}

func times(s, to *series) string {
	if to == nil {
		return "-"
	}
	return fmt.Sprintf("%.2f", s.ratio(to))
}

func (o *outcome) label(s *series) string {
	if o.Text && !o.Deflate && !s.server.Raw && !s.server.Checks {
		return s.name() + " *"
	}
	return s.name()
}

func (o *outcome) table() *report.Table {
	t := &report.Table{
		Title: fmt.Sprintf("%s: %s (%d rounds of %s messages)", o.Name, o.Title, o.rounds, report.Count(int64(o.messages))),
		Columns: []string{"server", "CPU/message", "lowest", "highest", "x rawtcp", "x best peer", "x gorilla",
			"messages/s", "p50", "p99", "p99.9", "worst/round", "worst"},
	}
	raw, best, gorilla := o.find("rawtcp"), o.bestPeer(), o.find("gorilla")
	noted := false
	for _, s := range o.servers {
		lo, hi := s.spread()
		wall := s.median(func(m sample) time.Duration { return m.Wall })
		row := []string{
			o.label(s), report.Duration(time.Duration(s.cpu())), report.Duration(lo), report.Duration(hi),
			times(s, raw), times(s, best), times(s, gorilla), report.Count(int64(1e9 / max(wall, 1))),
		}
		var worst time.Duration
		for _, of := range []func(sample) time.Duration{
			func(m sample) time.Duration { return m.P50 },
			func(m sample) time.Duration { return m.P99 },
			func(m sample) time.Duration { return m.P999 },
			func(m sample) time.Duration { worst = max(worst, m.Max); return m.Max },
		} {
			row = append(row, report.Duration(time.Duration(s.median(of))))
		}
		row = append(row, report.Duration(worst))
		if s.calls != nil {
			row = append(row, fmt.Sprintf("%.2f", s.calls.perMessage), s.calls.detail)
		}
		t.Add(row...)
		noted = noted || strings.HasSuffix(row[0], "*")
	}
	if o.servers[0].calls != nil {
		t.Columns = append(t.Columns, "syscalls/message", "the most frequent")
	}
	if o.Takeover {
		t.Notes = append(t.Notes, "-takeover: each side's messages refer to its earlier ones, as far back as the window reaches; the others compress each message by itself.")
	}
	if noted {
		t.Notes = append(t.Notes, asterisk)
	}
	return t
}

// asterisk explains the mark of label.
const asterisk = "* the library doesn't check UTF-8, the echo handler calls utf8.Valid; coder/websocket has no option for it at all."

// summaries are the tables of all workloads: ratios of CPU time, throughput
// where servers have several processors, and the answers that came last.
func summaries(o *options, all []*outcome) []*report.Table {
	cpu := summarize(o, all, "Server CPU per message, x bare TCP", false, func(s, raw *series) string {
		if s == raw {
			return report.Duration(time.Duration(s.cpu()))
		}
		return times(s, raw)
	})
	late := summarize(o, all, "The worst answer of all rounds, and p99.9, the median of the rounds", true, func(s, _ *series) string {
		worst := time.Duration(0)
		for _, m := range s.samples {
			worst = max(worst, m.Max)
		}
		p999 := s.median(func(m sample) time.Duration { return m.P999 })
		return report.Duration(worst) + ", " + report.Duration(time.Duration(p999))
	})
	if o.procs == 1 {
		return []*report.Table{cpu, late}
	}
	rate := summarize(o, all, "Messages per second", false, func(s, _ *series) string {
		return report.Count(int64(1e9 / max(s.median(func(m sample) time.Duration { return m.Wall }), 1)))
	})
	return []*report.Table{cpu, rate, late}
}

// summarize makes a table with a row for each workload and a column for each
// server, bare TCP first, or with servers down where cells are wide.
func summarize(o *options, all []*outcome, title string, down bool, cell func(s, raw *series) string) *report.Table {
	head := []string{"work"}
	for _, s := range o.servers {
		if s.Name == "rawtcp" {
			head = append(head, "bare TCP")
		} else {
			head = append(head, s.Name)
		}
	}
	rows := [][]string{head}
	for _, out := range all {
		name := out.Title
		if down {
			name = out.Name
		}
		row := []string{name}
		for _, s := range o.servers {
			if found := out.find(s.Name); found != nil {
				row = append(row, cell(found, out.find("rawtcp")))
			} else {
				row = append(row, "-")
			}
		}
		rows = append(rows, row)
	}
	if down {
		rows = turned(rows)
	}
	return &report.Table{Title: title, Columns: rows[0], Rows: rows[1:]}
}

// turned makes rows of the columns.
func turned(rows [][]string) [][]string {
	all := make([][]string, len(rows[0]))
	for _, row := range rows {
		for i, cell := range row {
			all[i] = append(all[i], cell)
		}
	}
	all[0][0] = "server"
	return all
}

// conditions says where and how the numbers came about.
func conditions(o *options) []string {
	var modules []string
	pinned := fmt.Sprintf("CPU %d", o.serverCPU)
	if o.procs > 1 {
		pinned = fmt.Sprintf("CPUs %d to %d", o.serverCPU, o.serverCPU+o.procs-1)
	}
	lines := []string{
		fmt.Sprintf("%s; server pinned to %s with GOMAXPROCS=%d, client on CPU %d; %d interleaved rounds, medians.",
			child.Machine(), pinned, o.procs, o.clientCPU, o.rounds),
	}
	for _, s := range o.servers {
		modules = append(modules, s.Module)
	}
	lines = append(lines, report.Versions(modules...)+"; "+time.Now().UTC().Format("2 January 2006")+".")
	for _, s := range o.servers {
		if s.Note != "" {
			lines = append(lines, s.Name+": "+s.Note+".")
		}
	}
	return lines
}

func writeMarkdown(w io.Writer, o *options, all []*outcome) error {
	for _, t := range summaries(o, all) {
		t.Markdown(w)
	}
	for _, line := range conditions(o) {
		fmt.Fprintf(w, "%s\n\n", line)
	}
	for _, out := range all {
		out.table().Markdown(w)
	}
	return nil
}

func chart(o *options, all []*outcome) *report.Chart {
	c := &report.Chart{
		Title:    "What a message costs the server",
		Subtitle: "CPU time per message as a multiple of a bare TCP echo's (dotted line); shorter is better",
		Footer:   conditions(o),
	}
	if slices.ContainsFunc(all, func(out *outcome) bool { return out.Text && !out.Deflate }) {
		c.Footer = append(c.Footer, asterisk)
	}
	for _, out := range all {
		raw := out.find("rawtcp")
		if raw == nil {
			continue
		}
		p := report.Panel{Title: out.Title, Mark: 1}
		for _, s := range out.servers {
			kind := report.Peer
			if s.server.Ours {
				kind = report.Ours
			} else if !s.server.Engine {
				kind = report.Floor
			}
			text := times(s, raw) + " x"
			if s == raw {
				text = report.Duration(time.Duration(s.cpu()))
			}
			p.Bars = append(p.Bars, report.Bar{Label: out.label(s), Value: s.ratio(raw), Text: text, Kind: kind})
		}
		c.Panels = append(c.Panels, p)
	}
	return c
}
