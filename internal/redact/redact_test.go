package redact_test

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/longshore-run/longshore/internal/redact"
)

func mask(t *testing.T, secrets []string, parts ...string) string {
	t.Helper()
	var out strings.Builder
	w := redact.New(&out, redact.NewSet(secrets...))
	for _, p := range parts {
		if n, err := w.Write([]byte(p)); n != len(p) || err != nil {
			t.Fatalf("Write() = %d, %v", n, err)
		}
	}
	if err := w.Flush(); err != nil || w.Held() != 0 {
		t.Fatalf("Flush() = %v, %d bytes are still held", err, w.Held())
	}
	return out.String()
}

func TestMasks(t *testing.T) {
	t.Parallel()
	const key = "-----BEGIN KEY-----\nMIIBVgIBADANBgkq\r\nx\n-----END KEY-----\n"
	tests := map[string]struct {
		secrets []string
		in      []string
		want    string
	}{
		"nothing to mask":                          {nil, []string{"hello\n"}, "hello\n"},
		"a secret":                                 {[]string{"hunter2"}, []string{"pw=hunter2;\n"}, "pw=[secret];\n"},
		"a secret over two writes":                 {[]string{"hunter2"}, []string{"pw=hun", "ter2\n"}, "pw=[secret]\n"},
		"a secret over many writes":                {[]string{"hunter2"}, strings.Split("pw=hunter2 hunt", ""), "pw=[secret] hunt"},
		"the longer of two that start alike":       {[]string{"hunter2", "hunter2-long"}, []string{"hunter2", "-long hunter2-lo hunter2"}, "[secret] [secret]-lo [secret]"},
		"two that overlap, together":               {[]string{"abcdef", "defghi"}, []string{"xabcd", "efghiy"}, "x[secret]y"},
		"a secret that overlaps itself":            {[]string{"aaaa"}, []string{"baaaaaaab"}, "b[secret]b"},
		"two that touch, one by one":               {[]string{"hunter2"}, []string{"hunter2hunter2"}, "[secret][secret]"},
		"not what is shorter than four bytes":      {[]string{"abc", " ab \n"}, []string{"abc ab"}, "abc ab"},
		"without the white space around it":        {[]string{" hunter2\n"}, []string{"<hunter2>"}, "<[secret]>"},
		"a line of several":                        {[]string{key}, []string{"got MIIBVgIBADANBgkq\n"}, "got [secret]\n"},
		"several lines as one":                     {[]string{"line one\n2\nline three"}, []string{"line one\n", "2\nline three\n"}, "[secret]\n"},
		"several lines that a terminal has broken": {[]string{"line one\n2\nline three"}, []string{"line one\r\n2\r\nline three\r\n"}, "[secret]\r\n2\r\n[secret]\r\n"},
		"bytes that are no text":                   {[]string{"\x00\xff\xfe\x01z"}, []string{"a\x00\xff", "\xfe\x01zb"}, "a[secret]b"},
		"a beginning that stays one":               {[]string{"hunter2"}, []string{"hunt", "er", "1"}, "hunter1"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			if got := mask(t, tt.secrets, tt.in...); got != tt.want {
				t.Errorf("got %q\nwant %q", got, tt.want)
			}
		})
	}
}

func TestMasksBase64(t *testing.T) {
	t.Parallel()
	const secret = "s3cr\xfb\xff>et?-va~lue"
	for _, enc := range []*base64.Encoding{base64.StdEncoding, base64.RawStdEncoding, base64.URLEncoding, base64.RawURLEncoding} {
		for _, before := range []string{"", "a", "ab", "abc", "user:", "name: x, pw: "} {
			for _, after := range []string{"", "\n", "zz", "  and more"} {
				for cut := range 3 { // any length of the secret itself
					secret := secret[:len(secret)-cut]
					got := mask(t, []string{secret}, enc.EncodeToString([]byte(before+secret+after)))
					text, _, ok := strings.Cut(got, redact.Mask)
					if want := (len(before)*8 + 5) / 6; !ok || len(text) > want {
						t.Errorf("before %q after %q: got %q, want at most %d characters before the mask", before, after, got, want)
					}
					if rest := strings.ReplaceAll(got, redact.Mask, ""); len(rest) > enc.EncodedLen(len(before)+len(after))+4 {
						t.Errorf("before %q after %q: %q leaves too much", before, after, got)
					}
					if before == "" && after == "" && got != redact.Mask {
						t.Errorf("the base64 of the secret alone becomes %q", got)
					}
				}
			}
		}
	}
}

func TestMasksBase64InLines(t *testing.T) {
	t.Parallel()
	secret := strings.Repeat("0123456789abcdefghijklmnopqrstuvwxyz", 6)
	text := base64.StdEncoding.EncodeToString([]byte(secret))
	for _, width := range []int{64, 76} {
		var lines string
		for rest := text; rest != ""; {
			n := min(width, len(rest))
			lines, rest = lines+rest[:n]+"\n", rest[n:]
		}
		got := mask(t, []string{secret}, lines)
		if strings.Trim(got, "[secrt]=\n") != "" {
			t.Errorf("width %d: got %q", width, got)
		}
	}
}

func TestASecretAddedLaterIsMaskedFromThenOn(t *testing.T) {
	t.Parallel()
	var out strings.Builder
	set := redact.NewSet()
	w := redact.New(&out, set)
	fmt.Fprint(w, "hunter2 ")
	set.Add("hunter2")
	fmt.Fprint(w, "hunter2 hun")
	set.Add("hunger")
	fmt.Fprint(w, "ger")
	_ = w.Flush()
	if got, want := out.String(), "hunter2 [secret] [secret]"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if got, want := set.Mask("the word is hunger"), "the word is [secret]"; got != want {
		t.Errorf("Mask() = %q, want %q", got, want)
	}
}

func TestHoldsBackOnlyWhatMayBeASecret(t *testing.T) {
	t.Parallel()
	long := "begin " + strings.Repeat("x", 5000)
	var out strings.Builder
	set := redact.NewSet(long, "hunter2")
	w := redact.New(&out, set)
	for _, step := range []struct {
		in   string
		held int
	}{
		{"an ordinary line\n", 0},
		{"a line that ends in hun", 3},
		{"dred\n", 0},
		{"begin " + strings.Repeat("x", 4999), 5005},
		{"y", 0},
		{"begin ", 6},
		{strings.Repeat("x", 5000), 0},
	} {
		fmt.Fprint(w, step.in)
		if w.Held() != step.held {
			t.Errorf("after %.20q: %d bytes are held, want %d", step.in, w.Held(), step.held)
		}
		if w.Held() > set.Longest() {
			t.Errorf("%d bytes are held, the longest needle has %d", w.Held(), set.Longest())
		}
	}
}

func TestSetIsSafeForConcurrentUse(t *testing.T) {
	t.Parallel()
	set := redact.NewSet("hunter2")
	var all sync.WaitGroup
	for i := range 4 {
		all.Go(func() {
			for j := range 50 {
				secret := fmt.Sprintf("secret-%d-%d", i, j)
				set.Add(secret)
				if got := set.Mask("a " + secret + " b hunter2"); got != "a [secret] b [secret]" {
					t.Errorf("got %q", got)
				}
			}
		})
	}
	all.Wait()
}

// naive marks every byte of every occurrence of every needle in the whole text
// and replaces each run of occurrences that overlap.
func naive(text string, needles []string) string {
	type span struct{ from, to int }
	var spans []span
	for _, n := range needles {
		for i := 0; i+len(n) <= len(text); i++ {
			if text[i:i+len(n)] == n {
				spans = append(spans, span{i, i + len(n)})
			}
		}
	}
	slices.SortFunc(spans, func(a, b span) int { return a.from - b.from })
	var b strings.Builder
	end := 0
	for _, s := range spans {
		if s.from >= end {
			b.WriteString(text[end:s.from] + redact.Mask)
		}
		end = max(end, s.to)
	}
	return b.String() + text[end:]
}

func FuzzAnySplitGivesTheSame(f *testing.F) {
	f.Add("abcdef\x00defghi\x00abcdefghijkl", "xxabcdefghixx abcdefghijkl abcdefgh", uint64(1))
	f.Add("aaaa\x00aaaab", "aaaaaaaaaaaaabaaaa", uint64(2))
	f.Add("hunter2\x00two\nlines\n", "aHVudGVyMg== dHdvCmxpbmVz two\nlines hunter2", uint64(3))
	f.Fuzz(func(t *testing.T, joined, text string, seed uint64) {
		secrets := strings.Split(joined, "\x00")
		want := naive(text, redact.Needles(secrets...))
		random := rand.New(rand.NewPCG(seed, seed))
		for range 4 {
			var parts []string
			for rest := text; rest != ""; {
				n := 1 + random.IntN(min(len(rest), 1+random.IntN(40)))
				parts, rest = append(parts, rest[:n]), rest[n:]
			}
			if got := mask(t, secrets, parts...); got != want {
				t.Fatalf("secrets %q, parts %q\n got %q\nwant %q", secrets, parts, got, want)
			}
		}
	})
}

// TestAnySplitOfRandomText is the fuzz test on texts that are made to hit: few
// letters, many secrets that share beginnings.
func TestAnySplitOfRandomText(t *testing.T) {
	t.Parallel()
	random := rand.New(rand.NewPCG(1, 2))
	letters := func(n int) string {
		b := make([]byte, n)
		for i := range b {
			b[i] = "ab\n"[random.IntN(3)]
		}
		return string(b)
	}
	for range 300 {
		var secrets []string
		shortest := 4 + random.IntN(9)
		for range 1 + random.IntN(8) {
			secrets = append(secrets, letters(shortest+random.IntN(12)))
		}
		text := letters(random.IntN(600))
		for range random.IntN(10) {
			at := random.IntN(len(text) + 1)
			text = text[:at] + secrets[random.IntN(len(secrets))] + text[at:]
		}
		want := naive(text, redact.Needles(secrets...))
		var parts []string
		for rest := text; rest != ""; {
			n := 1 + random.IntN(min(len(rest), 1+random.IntN(40)))
			parts, rest = append(parts, rest[:n]), rest[n:]
		}
		if got := mask(t, secrets, parts...); got != want {
			t.Fatalf("secrets %q, text %q\n got %q\nwant %q", secrets, text, got, want)
		}
	}
}

type discard struct{}

func (discard) Write(p []byte) (int, error) { return len(p), nil }

func BenchmarkWriter(b *testing.B) {
	random := rand.New(rand.NewPCG(7, 7))
	token := func(n int) string {
		const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"
		t := make([]byte, n)
		for i := range t {
			t[i] = alphabet[random.IntN(len(alphabet))]
		}
		return string(t)
	}
	var logs, prefixes bytes.Buffer
	for i := range 10000 {
		fmt.Fprintf(&logs, "2026-03-04T05:06:07Z step %d: updating aws:s3:Bucket(%s) +1 resource, took %dms token=%s\n", i, token(12), i%977, token(8))
		fmt.Fprintf(&prefixes, "AKIA%s ghp_%s AKIAAKIA\n", token(3), token(2))
	}
	for _, text := range []struct {
		name string
		data []byte
	}{{"log", logs.Bytes()}, {"prefixes", prefixes.Bytes()}} {
		for _, shortest := range []int{4, 16} {
			for _, n := range []int{0, 10, 50, 100, 1000} {
				var secrets []string
				for i := range n {
					switch {
					case i%10 == 0 && shortest < 16:
						secrets = append(secrets, token(shortest))
					case i%2 == 0:
						secrets = append(secrets, "AKIA"+token(16))
					default:
						secrets = append(secrets, "ghp_"+token(36))
					}
				}
				set := redact.NewSet(secrets...)
				b.Run(fmt.Sprintf("%s/shortest=%d/secrets=%d", text.name, shortest, n), func(b *testing.B) {
					b.SetBytes(int64(len(text.data)))
					w := redact.New(discard{}, set)
					for b.Loop() {
						for rest := text.data; len(rest) > 0; {
							k := min(len(rest), 32<<10)
							_, _ = w.Write(rest[:k])
							rest = rest[k:]
						}
					}
				})
			}
		}
	}
}
