package redact

import (
	"encoding/base64"
	"iter"
	"strings"
)

// needles yields every text to look for, each at least MinLength bytes long,
// some perhaps twice.
func needles(secret string) iter.Seq[string] {
	return func(yield func(string) bool) {
		secret = strings.TrimSpace(secret)
		if len(secret) < MinLength {
			return
		}
		all := []string{secret}
		if strings.ContainsAny(secret, "\r\n") {
			for line := range strings.FieldsFuncSeq(secret, func(r rune) bool { return r == '\n' || r == '\r' }) {
				all = append(all, strings.TrimSpace(line))
			}
		}
		for _, enc := range []*base64.Encoding{base64.StdEncoding, base64.URLEncoding} {
			all = appendBase64(all, enc, secret)
		}
		for _, needle := range all {
			if len(needle) >= MinLength && !yield(needle) {
				return
			}
		}
	}
}

// appendBase64 appends what the base64 of any text that holds secret holds too.
func appendBase64(all []string, enc *base64.Encoding, secret string) []string {
	raw := enc.WithPadding(base64.NoPadding)
	for before := range 3 { // bytes in front of it, modulo 3
		text := raw.EncodeToString([]byte("\x00\x00"[:before] + secret))
		bits := 8 * (before + len(secret))
		first := [3]int{0, 2, 3}[before] // characters that hold bits of what is in front
		whole := text[first : bits/6]
		all = append(all, whole)
		if bits%6 != 0 { // the secret ends the text: its last bits have a character of their own
			ended := text[first:]
			all = append(all, ended, ended+"=="[:(4-len(text)%4)%4])
		}
		if before == 0 {
			for _, width := range []int{64, 76} { // what openssl and PEM, and what base64(1), do
				all = appendWrapped(all, whole, width)
			}
		}
	}
	return all
}

func appendWrapped(all []string, text string, width int) []string {
	if len(text) <= width {
		return all
	}
	for ; len(text) > width; text = text[width:] {
		all = append(all, text[:width])
	}
	return append(all, text)
}
