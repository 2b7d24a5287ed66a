package logchunk_test

import (
	"errors"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/longshore-run/longshore/internal/api"
	"github.com/longshore-run/longshore/internal/control/logchunk"
)

func newCodec(t testing.TB) *logchunk.Codec {
	t.Helper()
	c := logchunk.New()
	t.Cleanup(c.Close)
	return c
}

func TestRoundTrip(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 11, 23, 10, 0, 0, 123456789, time.UTC)
	many := make([]api.LogLine, 3000)
	for i := range many {
		many[i] = api.LogLine{Time: now.Add(time.Duration(rand.IntN(2e9) - 1e9)), Text: strings.Repeat("ab\r", i%70) + "\n"}
	}
	for name, lines := range map[string][]api.LogLine{
		"no line":                         {},
		"one line":                        {{Time: now, Text: "hello\n"}},
		"an empty text and the zero time": {{}, {Time: now, Text: "x"}, {}},
		"bytes that are no text":          {{Time: now, Text: "\xff\x00\n"}},
		"times that run backwards":        {{Time: now, Text: "a\n"}, {Time: now.Add(-time.Hour), Text: "b\n"}},
		"a line of the largest size":      {{Time: now, Text: strings.Repeat("y", api.MaxLineBytes)}},
		"many lines":                      many,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := newCodec(t)
			block := c.Encode(lines)
			got, err := c.Decode(block, 0, len(lines))
			if err != nil {
				t.Fatalf("Decode: %v", err)
			}
			if diff := cmp.Diff(lines, got, cmpopts.EquateEmpty()); diff != "" {
				t.Errorf("Decode(Encode(lines)) differs (-want +got):\n%s", diff)
			}
			if len(lines) > 2 {
				part, err := c.Decode(block, 1, 1)
				if err != nil || !cmp.Equal(part, lines[1:2]) {
					t.Errorf("Decode(skip 1, limit 1) = %v, %v, want line 1", part, err)
				}
			}
		})
	}
}

func FuzzDecode(f *testing.F) {
	c := newCodec(f)
	f.Add(c.Encode([]api.LogLine{{Time: time.Unix(5, 0), Text: "hello\n"}, {Text: "x"}}))
	f.Add([]byte{0, 255, 255, 255, 255, 15})
	f.Add([]byte{1})
	f.Fuzz(func(t *testing.T, block []byte) {
		lines, err := c.Decode(block, 0, 1<<20)
		if err != nil {
			if !errors.Is(err, logchunk.ErrDamaged) {
				t.Errorf("error %v is not ErrDamaged", err)
			}
			return
		}
		again, err := c.Decode(c.Encode(lines), 0, len(lines))
		if err != nil || !cmp.Equal(lines, again, cmpopts.EquateEmpty()) {
			t.Errorf("what was read does not survive another round: %v", err)
		}
	})
}

func BenchmarkEncode(b *testing.B) {
	lines := make([]api.LogLine, 2600)
	size := 0
	for i := range lines {
		text := make([]byte, 99)
		for j := range text {
			text[j] = "abcdefghijklmnop 0123456789"[rand.IntN(27)]
		}
		lines[i] = api.LogLine{Time: time.Unix(1, int64(i)*500), Text: string(append(text, '\n'))}
		size += len(lines[i].Text)
	}
	c := newCodec(b)
	b.SetBytes(int64(size))
	for b.Loop() {
		if len(c.Encode(lines)) == 0 {
			b.Fatal("nothing")
		}
	}
}
