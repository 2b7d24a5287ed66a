package api

import (
	"bytes"
	"encoding/json"
	"errors"
	"strings"
	"time"
	"unicode/utf8"
)

// DecodeLogBatch reads one log batch. It takes any JSON that encoding/json
// would, and is several times faster for the form that this package and Pulumi's
// own runner write. Call it rather than json.Unmarshal, which reads the whole
// text once more before it asks anybody.
func DecodeLogBatch(body []byte) (LogBatch, error) {
	var b LogBatch
	err := b.UnmarshalJSON(body)
	return b, err
}

// UnmarshalJSON reads the wire form; see DecodeLogBatch.
func (b *LogBatch) UnmarshalJSON(body []byte) error {
	d := logDecoder{in: body}
	if d.batch() {
		*b = d.out
		return nil
	}
	type plain LogBatch // sheds this method
	var p plain
	if err := json.Unmarshal(body, &p); err != nil {
		var syntax *json.SyntaxError
		if errors.As(err, &syntax) {
			return err
		}
		return errors.New(`log batch: want {"offset":0,"lines":[{"t":"2006-01-02T15:04:05Z","l":"text\n"}]}`)
	}
	*b = LogBatch(p)
	return nil
}

// logDecoder reads the usual form. Whatever it does not expect makes it give up,
// for encoding/json to decide.
type logDecoder struct {
	in   []byte
	pos  int
	out  LogBatch
	text strings.Builder // all lines share its memory

	at    time.Time
	stamp []byte // what at was read from
}

func (d *logDecoder) batch() bool {
	if !d.literal(bodyHead) || !d.number() || !d.literal(bodyMid) || !d.literal("[") {
		return false
	}
	d.out.Lines = make([]LogLine, 0, bytes.Count(d.in, []byte(`"l":`)))
	d.text.Grow(len(d.in) - d.pos) // a text is never longer than its JSON: nothing ever moves
	for !d.literal("]") {
		if len(d.out.Lines) > 0 && !d.literal(",") {
			return false
		}
		if !d.line() {
			return false
		}
	}
	return d.literal("}") && len(bytes.TrimRight(d.in[d.pos:], " \t\r\n")) == 0
}

func (d *logDecoder) literal(s string) bool {
	if len(d.in)-d.pos < len(s) || string(d.in[d.pos:d.pos+len(s)]) != s {
		return false
	}
	d.pos += len(s)
	return true
}

// number reads a plain number of up to 18 digits.
func (d *logDecoder) number() bool {
	from := d.pos
	var n int64
	for d.pos < len(d.in) && d.in[d.pos]-'0' <= 9 {
		n = n*10 + int64(d.in[d.pos]-'0')
		d.pos++
		if d.pos-from > 18 {
			return false
		}
	}
	d.out.Offset = n
	digits := d.pos - from
	return digits == 1 || digits > 1 && d.in[from] != '0'
}

func (d *logDecoder) line() bool {
	if !d.literal(`{"t":"`) {
		return false
	}
	end := bytes.IndexByte(d.in[d.pos:], '"')
	if end < 0 {
		return false
	}
	stamp := d.in[d.pos : d.pos+end]
	d.pos += end
	if d.stamp == nil || !bytes.Equal(stamp, d.stamp) {
		if bytes.IndexByte(stamp, '\\') >= 0 || d.at.UnmarshalText(stamp) != nil {
			return false
		}
		d.stamp = stamp
	}
	if !d.literal(`","l":"`) {
		return false
	}
	from := d.text.Len()
	if !d.string() || !d.literal(`}`) {
		return false
	}
	d.out.Lines = append(d.out.Lines, LogLine{Time: d.at, Text: d.text.String()[from:]})
	return true
}

// string reads the rest of a text, with its closing quote.
func (d *logDecoder) string() bool {
	in, i, from := d.in, d.pos, d.pos
	for {
		for i+8 <= len(in) && escapes(load64(in, i)) == 0 {
			i += 8
		}
		if i >= len(in) {
			return false
		}
		switch c := in[i]; {
		case c == '"':
			d.text.Write(in[from:i])
			d.pos = i + 1
			return true
		case c == '\\':
			d.text.Write(in[from:i])
			n := d.escape(in[i:])
			if n == 0 {
				return false
			}
			i += n
			from = i
		case c < 0x20:
			return false
		case c < utf8.RuneSelf:
			i++
		default:
			n := runeLen(in, i)
			if n == 0 {
				return false
			}
			i += n
		}
	}
}

// escape writes what the escape at the start of in stands for and returns its
// length, or 0 for one it leaves to encoding/json.
func (d *logDecoder) escape(in []byte) int {
	if len(in) < 2 {
		return 0
	}
	switch c := in[1]; c {
	case 'n':
		d.text.WriteByte('\n')
	case 'r':
		d.text.WriteByte('\r')
	case 't':
		d.text.WriteByte('\t')
	case '"', '\\', '/':
		d.text.WriteByte(c)
	case 'b':
		d.text.WriteByte('\b')
	case 'f':
		d.text.WriteByte('\f')
	case 'u':
		r := hex4(in[2:])
		if r < 0 || r >= 0xD800 && r < 0xE000 { // half of a surrogate pair
			return 0
		}
		d.text.WriteRune(r)
		return 6
	default:
		return 0
	}
	return 2
}

func hex4(in []byte) rune {
	if len(in) < 4 {
		return -1
	}
	var r rune
	for _, c := range in[:4] {
		switch {
		case c-'0' <= 9:
			r = r<<4 | rune(c-'0')
		case c|0x20 >= 'a' && c|0x20 <= 'f':
			r = r<<4 | rune((c|0x20)-'a'+10)
		default:
			return -1
		}
	}
	return r
}
