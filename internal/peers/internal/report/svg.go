package report

import (
	"fmt"
	"html"
	"io"
	"strings"
	"unicode/utf8"
)

// A Kind tells the bars of a chart apart.
type Kind string

// The kinds of bars.
const (
	Floor Kind = "floor"
	Peer  Kind = "peer"
	Ours  Kind = "ours"
)

// A Bar is one value of a panel. Text stands behind it.
type Bar struct {
	Label string
	Value float64
	Text  string
	Kind  Kind
}

// A Panel is one group of bars on a scale of its own. Mark, if positive, draws
// a line at that value.
type Panel struct {
	Title string
	Mark  float64
	Bars  []Bar
}

// A Chart is a page of panels in two columns.
type Chart struct {
	Title    string
	Subtitle string
	Footer   []string
	Panels   []Panel
}

const (
	chartWidth  = 980
	panelWidth  = 455
	barHeight   = 15
	barStep     = 20
	labelWidth  = 110
	valueWidth  = 92
	panelHead   = 26
	panelGap    = 26
	chartHead   = 76
	lineHeight  = 17
	chartMargin = 24
	footerRunes = 150
)

// The colors follow the reader's scheme, also when the file is embedded as an
// image.
const chartStyle = `
  .bg { fill: #ffffff } .t { fill: #1f2328 } .m { fill: #59636e }
  .floor { fill: #c3cbd4 } .peer { fill: #8b97a5 } .ours { fill: #0969da }
  .mark { stroke: #1f2328; stroke-width: 1; stroke-dasharray: 2 3; opacity: .55 }
  text { font: 12px system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif }
  .h1 { font-size: 18px; font-weight: 600 } .h2 { font-size: 13px; font-weight: 600 } .own { font-weight: 600 }
  @media (prefers-color-scheme: dark) {
    .bg { fill: #0d1117 } .t { fill: #e6edf3 } .m { fill: #9198a1 }
    .floor { fill: #3d444d } .peer { fill: #656f7b } .ours { fill: #4493f8 }
    .mark { stroke: #e6edf3 }
  }
`

// SVG draws the chart.
func (c *Chart) SVG(w io.Writer) error {
	var columns [2]int
	type place struct{ x, y int }
	places := make([]place, len(c.Panels))
	for i, p := range c.Panels {
		column := i % 2
		places[i] = place{chartMargin + column*(chartWidth-2*chartMargin-panelWidth), chartHead + columns[column]}
		columns[column] += panelHead + len(p.Bars)*barStep + panelGap
		if column == 1 {
			columns[0] = max(columns[0], columns[1])
			columns[1] = columns[0]
		}
	}
	bottom := chartHead + max(columns[0], columns[1])
	var footer []string
	for _, line := range c.Footer {
		footer = append(footer, wrap(line, footerRunes)...)
	}
	height := bottom + len(footer)*lineHeight + chartMargin/2
	p := &printer{w: w}
	p.f(`<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" width="%d" height="%d" role="img" aria-label="%s">`+"\n",
		chartWidth, height, chartWidth, height, html.EscapeString(c.Title))
	p.f("<style>%s</style>\n", chartStyle)
	p.f(`<rect class="bg" width="%d" height="%d" rx="8"/>`+"\n", chartWidth, height)
	p.text(chartMargin, 34, "t h1", "start", c.Title)
	p.text(chartMargin, 54, "m", "start", c.Subtitle)
	for i := range c.Panels {
		c.Panels[i].draw(p, places[i].x, places[i].y)
	}
	for i, line := range footer {
		p.text(chartMargin, bottom+i*lineHeight, "m", "start", line)
	}
	p.f("</svg>\n")
	return p.err
}

// wrap breaks a line where it gets longer than n runes.
func wrap(line string, n int) []string {
	var all []string
	now := ""
	for word := range strings.FieldsSeq(line) {
		if now != "" && utf8.RuneCountInString(now)+1+utf8.RuneCountInString(word) > n {
			all, now = append(all, now), "   "
		}
		now = strings.TrimPrefix(now+" "+word, " ")
	}
	return append(all, now)
}

func (panel *Panel) draw(p *printer, x, y int) {
	p.text(x, y+12, "t h2", "start", panel.Title)
	longest := panel.Mark
	for _, b := range panel.Bars {
		longest = max(longest, b.Value)
	}
	room := float64(panelWidth - labelWidth - valueWidth)
	top := y + panelHead
	for i, b := range panel.Bars {
		by := top + i*barStep
		class := "t"
		if b.Kind == Ours {
			class = "t own"
		}
		p.text(x+labelWidth-8, by+12, class, "end", b.Label)
		width := room * b.Value / max(longest, 1e-9)
		p.f(`<rect class="%s" x="%d" y="%d" width="%.1f" height="%d" rx="2"/>`+"\n", b.Kind, x+labelWidth, by, max(width, 1), barHeight)
		p.text(x+labelWidth+int(width)+6, by+12, class, "start", b.Text)
	}
	if panel.Mark > 0 {
		mx := float64(x+labelWidth) + room*panel.Mark/longest
		p.f(`<line class="mark" x1="%.1f" y1="%d" x2="%.1f" y2="%d"/>`+"\n", mx, top-4, mx, top+len(panel.Bars)*barStep)
	}
}

type printer struct {
	w   io.Writer
	err error
}

func (p *printer) f(format string, args ...any) {
	if p.err == nil {
		_, p.err = fmt.Fprintf(p.w, format, args...)
	}
}

func (p *printer) text(x, y int, class, anchor, s string) {
	if !utf8.ValidString(s) {
		s = "?"
	}
	p.f(`<text class="%s" x="%d" y="%d" text-anchor="%s">%s</text>`+"\n", class, x, y, anchor, html.EscapeString(s))
}
