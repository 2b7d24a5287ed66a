package api_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
	"github.com/longshore-run/longshore/internal/api"
)

// plainBatch has the fields of api.LogBatch and none of its methods: what
// encoding/json makes of it is the truth.
type plainBatch struct {
	Offset int64         `json:"offset"`
	Lines  []api.LogLine `json:"lines"`
}

var when = time.Date(2026, 3, 4, 5, 6, 7, 89, time.UTC)

func TestLogBatchWireForm(t *testing.T) {
	t.Parallel()
	b := api.LogBatch{Offset: 42, Lines: []api.LogLine{
		{Time: when, Text: "plain\n"},
		{Time: when.Add(time.Second).In(time.FixedZone("", 3600)), Text: "50%\r100% <&> \"q\" \\ \t\x1b[0m \u2028 日本\n"},
		{Time: when, Text: "bad \xff\xfe utf8"},
	}}
	const want = `{"offset":42,"lines":[` +
		`{"t":"2026-03-04T05:06:07.000000089Z","l":"plain\n"},` +
		`{"t":"2026-03-04T05:06:08.000000089Z","l":"50%\r100% <&> \"q\" \\ \t\u001b[0m ` + "\u2028" + ` 日本\n"},` +
		`{"t":"2026-03-04T05:06:07.000000089Z","l":"bad ` + "\uFFFD\uFFFD" + ` utf8"}]}`
	if got := string(b.AppendJSON(nil)); got != want {
		t.Errorf("AppendJSON() = %s\nwant %s", got, want)
	}
	var e api.LogEncoder
	for _, l := range b.Lines {
		e.Append(l.Time, []byte(l.Text))
	}
	for _, offset := range []int64{7, 42} { // any number of times
		got := string(e.Body(offset))
		if w := strings.Replace(want, "42", fmt.Sprint(offset), 1); got != w {
			t.Errorf("Body(%d) = %s\nwant %s", offset, got, w)
		}
	}
	if got := string(api.LogBatch{}.AppendJSON(nil)); got != `{"offset":0,"lines":[]}` {
		t.Errorf("empty batch = %s", got)
	}
	if got := string(new(api.LogEncoder).Body(-1 << 63)); got != `{"offset":-9223372036854775808,"lines":[]}` {
		t.Errorf("empty encoder = %s", got)
	}
}

func TestLogEncoderKeepsItsLinesElsewhere(t *testing.T) {
	t.Parallel()
	var e, back api.LogEncoder
	e.AppendString(when, "one\n")
	e.AppendString(when, "two\n")
	raw := bytes.Clone(e.Raw())
	back.AppendString(when, "something else that is longer than what comes after it")
	if err := back.Load(len(raw), e.Lines(), func(p []byte) error { copy(p, raw); return nil }); err != nil {
		t.Fatal(err)
	}
	if got, want := string(back.Body(3)), string(e.Body(3)); got != want || back.Lines() != 2 {
		t.Errorf("after Load: %s, %d lines\nwant %s", got, back.Lines(), want)
	}
}

func TestLogBatchReadsWhatEncodingJSONReads(t *testing.T) {
	t.Parallel()
	for name, in := range map[string]string{
		"the usual form":           `{"offset":3,"lines":[{"t":"2026-03-04T05:06:07.5Z","l":"a\n"},{"t":"2026-03-04T05:06:07.5Z","l":"b\n"}]}`,
		"white space":              ` { "offset" : 3 , "lines" : [ { "t" : "2026-03-04T05:06:07Z" , "l" : "a" } ] } `,
		"other order":              `{"lines":[{"l":"a","t":"2026-03-04T05:06:07Z"}],"offset":3}`,
		"unknown fields":           `{"offset":3,"lines":[{"t":"2026-03-04T05:06:07Z","l":"a","x":{"y":[1]}}],"z":null}`,
		"other case":               `{"Offset":3,"LINES":[{"T":"2026-03-04T05:06:07Z","L":"a"}]}`,
		"null lines":               `{"offset":3,"lines":null}`,
		"no lines":                 `{"offset":3,"lines":[]}`,
		"nothing":                  `{}`,
		"a zone":                   `{"offset":3,"lines":[{"t":"2026-03-04T05:06:07+02:00","l":"a"}]}`,
		"surrogates":               `{"offset":3,"lines":[{"t":"2026-03-04T05:06:07Z","l":"\ud83d\ude00 \ud83d \u00e9"}]}`,
		"every escape":             `{"offset":3,"lines":[{"t":"2026-03-04T05:06:07Z","l":"\"\\\/\b\f\n\r\t\u0041\u0000"}]}`,
		"bytes that are no UTF-8":  "{\"offset\":3,\"lines\":[{\"t\":\"2026-03-04T05:06:07Z\",\"l\":\"a\xff\xc3(\"}]}",
		"long text with UTF-8":     `{"offset":3,"lines":[{"t":"2026-03-04T05:06:07Z","l":"` + strings.Repeat("ä日x", 100) + `"}]}`,
		"two values":               `{"offset":3,"lines":[]}{}`,
		"a comma too many":         `{"offset":3,"lines":[{"t":"2026-03-04T05:06:07Z","l":"a"},]}`,
		"a control character":      "{\"offset\":3,\"lines\":[{\"t\":\"2026-03-04T05:06:07Z\",\"l\":\"a\nb\"}]}",
		"a bad escape":             `{"offset":3,"lines":[{"t":"2026-03-04T05:06:07Z","l":"\x41"}]}`,
		"cut off":                  `{"offset":3,"lines":[{"t":"2026-03-04T05:06:07Z","l":"abc`,
		"a leading zero":           `{"offset":03,"lines":[]}`,
		"a fraction":               `{"offset":3.5,"lines":[]}`,
		"a negative offset":        `{"offset":-3,"lines":[]}`,
		"a number too large":       `{"offset":99999999999999999999,"lines":[]}`,
		"no date":                  `{"offset":3,"lines":[{"t":"yesterday","l":"a"}]}`,
		"an escape in the date":    `{"offset":3,"lines":[{"t":"2026-03-04T05:06:07\u005a","l":"a"}]}`,
		"a list":                   `[]`,
		"an HTML page":             `<html>`,
		"an empty body":            ``,
		"a text where a line goes": `{"offset":3,"lines":["a"]}`,
	} {
		t.Run(name, func(t *testing.T) { sameAsEncodingJSON(t, []byte(in)) })
	}
}

func sameAsEncodingJSON(t *testing.T, in []byte) {
	t.Helper()
	var want plainBatch
	wantErr := json.Unmarshal(in, &want)
	for how, read := range map[string]func() (api.LogBatch, error){
		"DecodeLogBatch": func() (api.LogBatch, error) { return api.DecodeLogBatch(in) },
		"json.Unmarshal": func() (b api.LogBatch, err error) { err = json.Unmarshal(in, &b); return b, err },
	} {
		got, err := read()
		if (err != nil) != (wantErr != nil) {
			t.Errorf("%s: error = %v, want %v", how, err, wantErr)
			continue
		}
		if diff := cmp.Diff(want, plainBatch(got)); err == nil && diff != "" {
			t.Errorf("%s (-want +got):\n%s", how, diff)
		}
	}
}

func FuzzLogBatchDecode(f *testing.F) {
	f.Add([]byte(`{"offset":3,"lines":[{"t":"2026-03-04T05:06:07.5Z","l":"a\n"},{"t":"2026-03-04T05:06:07.5Z","l":"b\u0007"}]}`))
	f.Add([]byte(`{"offset":0,"lines":[]}`))
	f.Fuzz(func(t *testing.T, in []byte) {
		if !bytes.Equal(bytes.TrimSpace(in), []byte("null")) { // Unmarshal never shows null to a method
			sameAsEncodingJSON(t, in)
		}
	})
}

func FuzzLogEncoder(f *testing.F) {
	f.Add("plain\n", "quote \" \\ \x00 \x7f", int64(0))
	f.Add("\xff\xe2\x82 cut", "日本語\u2028", int64(1))
	f.Fuzz(func(t *testing.T, one, two string, offset int64) {
		lines := []api.LogLine{{Time: when, Text: one}, {Time: when, Text: two}}
		var e api.LogEncoder
		e.AppendString(when, one)
		e.Append(when, []byte(two))
		batch := api.LogBatch{Offset: offset, Lines: lines}
		if got, want := string(e.Body(offset)), string(batch.AppendJSON(nil)); got != want {
			t.Errorf("encoder and AppendJSON differ:\n%s\n%s", got, want)
		}
		var got plainBatch
		if err := json.Unmarshal(e.Body(offset), &got); err != nil {
			t.Fatal(err)
		}
		for i, l := range lines { // what encoding/json makes of the same text
			text, _ := json.Marshal(l.Text)
			var want string
			_ = json.Unmarshal(text, &want)
			if got.Lines[i].Text != want || got.Offset != offset {
				t.Errorf("line %q reads back as %q, want %q", l.Text, got.Lines[i].Text, want)
			}
			clean := api.SanitizeLine(nil, []byte(l.Text))
			if string(clean) != want || !utf8.Valid(clean) {
				t.Errorf("SanitizeLine(%q) = %q, want %q", l.Text, clean, want)
			}
		}
	})
}

func TestLogBatchRefusesATimeThatRFC3339CannotSay(t *testing.T) {
	t.Parallel()
	b := api.LogBatch{Lines: []api.LogLine{{Time: time.Date(12000, 1, 1, 0, 0, 0, 0, time.UTC)}}}
	if _, err := json.Marshal(b); err == nil {
		t.Error("json.Marshal of the year 12000 succeeds")
	}
	if got := string(b.AppendJSON(nil)); !strings.Contains(got, "0001-01-01T00:00:00Z") {
		t.Errorf("AppendJSON() = %s, want the zero time", got)
	}
}

func benchLines() (lines [][]byte, size int64) {
	for i := range 2000 {
		l := fmt.Appendf(nil, "%08d %s\n", i, strings.Repeat("0123456789 abcdef=", 5))[:99]
		lines = append(lines, append(l, '\n'))
		size += 100
	}
	return lines, size
}

func BenchmarkLogEncoder(b *testing.B) {
	lines, size := benchLines()
	b.SetBytes(size)
	var e api.LogEncoder
	for b.Loop() {
		e.Reset(e.Buffer())
		for i, l := range lines {
			e.Append(when.Add(time.Duration(i/650)), l)
		}
		e.Body(1)
	}
}

func BenchmarkDecodeLogBatch(b *testing.B) {
	lines, size := benchLines()
	var e api.LogEncoder
	for i, l := range lines {
		e.Append(when.Add(time.Duration(i/650)), l)
	}
	body := bytes.Clone(e.Body(1))
	b.SetBytes(size)
	for b.Loop() {
		if _, err := api.DecodeLogBatch(body); err != nil {
			b.Fatal(err)
		}
	}
}
