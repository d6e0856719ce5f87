// Package report prints tables, as text and as Markdown, and draws bar charts.
package report

import (
	"fmt"
	"io"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"time"
	"unicode/utf8"
)

// A Table is a title, a header and rows. The first column is flush left, the
// others flush right. Cells may be missing at a row's end.
type Table struct {
	Title   string
	Columns []string
	Rows    [][]string
	Notes   []string
}

// Add appends a row.
func (t *Table) Add(cells ...string) { t.Rows = append(t.Rows, cells) }

// Text prints the table for a terminal.
func (t *Table) Text(w io.Writer) {
	widths := make([]int, len(t.Columns))
	for _, row := range slices.Concat([][]string{t.Columns}, t.Rows) {
		for i, cell := range row {
			widths[i] = max(widths[i], utf8.RuneCountInString(cell))
		}
	}
	line := func(row []string) {
		var b strings.Builder
		for i, cell := range row {
			pad := strings.Repeat(" ", widths[i]-utf8.RuneCountInString(cell))
			if i == 0 {
				b.WriteString(cell + pad)
			} else {
				b.WriteString("  " + pad + cell)
			}
		}
		fmt.Fprintln(w, strings.TrimRight(b.String(), " "))
	}
	if t.Title != "" {
		fmt.Fprintln(w, t.Title)
	}
	line(t.Columns)
	for _, row := range t.Rows {
		line(row)
	}
	for _, n := range t.Notes {
		fmt.Fprintln(w, n)
	}
	fmt.Fprintln(w)
}

// Markdown prints the table for a README.
func (t *Table) Markdown(w io.Writer) {
	if t.Title != "" {
		fmt.Fprintf(w, "**%s**\n\n", t.Title)
	}
	line := func(row []string) { fmt.Fprintf(w, "| %s |\n", strings.Join(row, " | ")) }
	line(t.Columns)
	rule := make([]string, len(t.Columns))
	for i := range rule {
		rule[i] = "---:"
	}
	rule[0] = "---"
	line(rule)
	for _, row := range t.Rows {
		line(slices.Concat(row, make([]string, len(t.Columns)-len(row))))
	}
	fmt.Fprintln(w)
	for _, n := range t.Notes {
		fmt.Fprintf(w, "%s\n\n", n)
	}
}

// Duration prints d with three digits and the fitting unit.
func Duration(d time.Duration) string {
	v, unit := float64(d), "ns"
	for _, next := range []string{"µs", "ms", "s"} {
		if v < 1000 {
			break
		}
		v, unit = v/1000, next
	}
	return Digits(v) + " " + unit
}

// Digits prints v with three significant digits.
func Digits(v float64) string {
	switch {
	case v >= 100:
		return fmt.Sprintf("%.0f", v)
	case v >= 10:
		return fmt.Sprintf("%.1f", v)
	}
	return fmt.Sprintf("%.2f", v)
}

// Count prints n with its thousands parted.
func Count(n int64) string {
	s := fmt.Sprint(n)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

// Bytes prints n in KiB or MiB.
func Bytes(n float64) string {
	switch {
	case n < 0:
		return "-" + Bytes(-n)
	case n >= 1<<30:
		return Digits(n/(1<<30)) + " GiB"
	case n >= 1<<20:
		return Digits(n/(1<<20)) + " MiB"
	}
	return Digits(n/(1<<10)) + " KiB"
}

// Median returns the middle of values, NaN-free and not empty.
func Median(values []float64) float64 {
	v := slices.Sorted(slices.Values(values))
	if n := len(v); n%2 == 0 {
		return (v[n/2-1] + v[n/2]) / 2
	}
	return v[len(v)/2]
}

// Versions names the Go release and the modules as they were built.
func Versions(modules ...string) string {
	parts := []string{runtime.Version()}
	info, ok := debug.ReadBuildInfo()
	for _, d := range infoDeps(info, ok) {
		if slices.Contains(modules, d.Path) && d.Replace == nil {
			parts = append(parts, strings.TrimPrefix(d.Path, "github.com/")+" "+d.Version)
		}
	}
	return strings.Join(parts, ", ")
}

func infoDeps(info *debug.BuildInfo, ok bool) []*debug.Module {
	if !ok {
		return nil
	}
	return info.Deps
}
