package main

import (
	"strings"
	"unicode"
	"unicode/utf8"
)

const maxName = 24 // characters

// validName allows what is seen. What isn't seen makes one name look like
// another, so it is refused but for the three that emoji and some scripts need,
// between characters that aren't ASCII.
func validName(s string) bool {
	if s == "" || !utf8.ValidString(s) || utf8.RuneCountInString(s) > maxName {
		return false
	}
	rs := []rune(s)
	for i, r := range rs {
		ok := unicode.IsPrint(r) && !unseen(r)
		switch r {
		case '\u200c', '\u200d': // zero-width non-joiner and joiner
			ok = i > 0 && rs[i-1] > unicode.MaxASCII && i+1 < len(rs) && rs[i+1] > unicode.MaxASCII
		case '\ufe0f': // the character before it as an emoji
			ok = i > 0 && rs[i-1] > unicode.MaxASCII
		}
		if !ok {
			return false
		}
	}
	return nameKey(s) != ""
}

// unseen reports whether r is shown as nothing, or as a gap that isn't a space.
func unseen(r rune) bool {
	return unicode.In(r, unicode.Cf, unicode.Other_Default_Ignorable_Code_Point, unicode.Variation_Selector) ||
		r == '\u2800' // the Braille pattern without dots
}

// nameKey is the same for names that differ in nothing but case and what isn't
// seen: one of them is taken when another is. That a Cyrillic А looks like a
// Latin one takes tables to know (Unicode Technical Standard 39).
func nameKey(name string) string {
	return strings.Map(func(r rune) rune {
		if unseen(r) {
			return -1
		}
		least := r
		for f := unicode.SimpleFold(r); f != r; f = unicode.SimpleFold(f) {
			least = min(least, f)
		}
		return least
	}, name)
}
