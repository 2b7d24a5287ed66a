package api

import (
	"fmt"
	"strconv"
	"time"
	"unicode/utf8"
)

// LogEncoder builds the JSON of a LogBatch line by line, straight from bytes,
// without a string for each line. The zero value is an empty batch. It is not
// safe for concurrent use.
//
// What is no UTF-8 is written as U+FFFD, once for each byte, as encoding/json
// does: JSON has no other text. SanitizeLine says how long a line gets by that.
type LogEncoder struct {
	buf   []byte // headRoom bytes, then `[{...},{...}` without the closing bracket
	lines int

	at    time.Time // of the text in stamp, so that a burst formats it once
	stamp []byte    // `{"t":"...","l":"`
}

// headRoom is where Body writes what goes before the lines, right-aligned.
const headRoom = len(bodyHead) + len("-9223372036854775808") + len(bodyMid)

const (
	bodyHead = `{"offset":`
	bodyMid  = `,"lines":`
	bodyTail = `]}`
)

// Append adds one line.
func (e *LogEncoder) Append(t time.Time, text []byte) { appendLine(e, t, text) }

// AppendString adds one line.
func (e *LogEncoder) AppendString(t time.Time, text string) { appendLine(e, t, text) }

func appendLine[T []byte | string](e *LogEncoder, t time.Time, text T) {
	e.start()
	if e.lines > 0 {
		e.buf = append(e.buf, ',')
	}
	if len(e.stamp) == 0 || t != e.at {
		e.at = t
		e.stamp = append(appendTime(append(e.stamp[:0], `{"t":"`...), t), `","l":"`...)
	}
	e.buf = append(e.buf, e.stamp...)
	e.buf = appendText(e.buf, text)
	e.buf = append(e.buf, '"', '}')
	e.lines++
}

func (e *LogEncoder) start() {
	if len(e.buf) == 0 {
		var head [headRoom + 1]byte
		head[headRoom] = '['
		e.buf = append(e.buf, head[:]...)
	}
}

// Lines returns how many lines were added since the last Reset.
func (e *LogEncoder) Lines() int { return e.lines }

// Size returns about how many bytes Body will return.
func (e *LogEncoder) Size() int { return len(e.buf) }

// Body returns the batch with its first line at offset. It is valid until the
// next call of any method but Lines and Size; it may be asked for again, with
// another offset.
func (e *LogEncoder) Body(offset int64) []byte {
	e.start()
	e.buf = append(e.buf, bodyTail...)
	whole := e.buf
	e.buf = e.buf[:len(e.buf)-len(bodyTail)]

	var digits [20]byte
	number := strconv.AppendInt(digits[:0], offset, 10)
	from := headRoom - len(bodyMid) - len(number) - len(bodyHead)
	n := from + copy(whole[from:], bodyHead)
	n += copy(whole[n:], number)
	copy(whole[n:], bodyMid)
	return whole[from:]
}

// Raw returns the encoded lines without an offset, for keeping elsewhere. Load
// takes them back. It is valid as long as what Body returns.
func (e *LogEncoder) Raw() []byte {
	e.start()
	return e.buf[headRoom:]
}

// Load makes e hold what Raw returned of an encoder that had n lines. The
// function read fills all of the slice it is given, of the given size.
func (e *LogEncoder) Load(size, n int, read func([]byte) error) error {
	e.Reset(e.buf)
	e.start()
	e.buf = grow(e.buf[:headRoom], size)
	e.lines = n
	return read(e.buf[headRoom:])
}

func grow(b []byte, n int) []byte {
	if cap(b)-len(b) >= n {
		return b[:len(b)+n]
	}
	return append(b, make([]byte, n)...)
}

// Reset empties e and makes it write into the memory of buf, which may be nil.
func (e *LogEncoder) Reset(buf []byte) { e.buf, e.lines = buf[:0], 0 }

// Buffer returns the memory that e writes into, to be used again with Reset.
func (e *LogEncoder) Buffer() []byte { return e.buf }

// AppendJSON appends the wire form of b to dst and returns it. Nil lines are
// written as an empty list.
func (b LogBatch) AppendJSON(dst []byte) []byte {
	dst = strconv.AppendInt(append(dst, bodyHead...), b.Offset, 10)
	dst = append(append(dst, bodyMid...), '[')
	for i, l := range b.Lines {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = appendTime(append(dst, `{"t":"`...), l.Time)
		dst = appendText(append(dst, `","l":"`...), l.Text)
		dst = append(dst, '"', '}')
	}
	return append(dst, bodyTail...)
}

// MarshalJSON writes the wire form. It fails for a time that RFC 3339 cannot
// say.
func (b LogBatch) MarshalJSON() ([]byte, error) {
	size := 64
	for i, l := range b.Lines {
		if y := l.Time.UTC().Year(); y < 0 || y > 9999 {
			return nil, fmt.Errorf("log batch: line %d has a time in the year %d", i, y)
		}
		size += len(l.Text) + 64
	}
	return b.AppendJSON(make([]byte, 0, size)), nil
}

// appendTime writes t in UTC with nanoseconds. A year that RFC 3339 has no
// digits for becomes the zero time: a log line must never be lost over its time.
func appendTime(dst []byte, t time.Time) []byte {
	t = t.UTC()
	if y := t.Year(); y < 0 || y > 9999 {
		t = time.Time{}
	}
	return t.AppendFormat(dst, time.RFC3339Nano)
}

const (
	ones  = 0x0101010101010101
	highs = 0x8080808080808080
)

// escapes returns a word whose high bits mark the bytes of w that a JSON text
// cannot hold as they are, and those from 0x80 up. A byte above a marked one may
// be marked wrongly: only whether there is one, and the lowest, can be relied on.
func escapes(w uint64) uint64 {
	quote := w ^ ones*'"'
	slash := w ^ ones*'\\'
	return (w | (w - ones*0x20) | (quote - ones) | (slash - ones)) & highs
}

func appendText[T []byte | string](dst []byte, s T) []byte {
	const hex = "0123456789abcdef"
	from := 0
	for i := 0; i < len(s); {
		if i+8 <= len(s) && escapes(load64(s, i)) == 0 {
			i += 8
			continue
		}
		c := s[i]
		if c >= 0x20 && c != '"' && c != '\\' && c < utf8.RuneSelf {
			i++
			continue
		}
		if c >= utf8.RuneSelf {
			if n := runeLen(s, i); n > 0 {
				i += n
				continue
			}
			dst = append(append(dst, s[from:i]...), "\uFFFD"...)
			i++
			from = i
			continue
		}
		dst = append(dst, s[from:i]...)
		switch c {
		case '"', '\\':
			dst = append(dst, '\\', c)
		case '\n':
			dst = append(dst, '\\', 'n')
		case '\r':
			dst = append(dst, '\\', 'r')
		case '\t':
			dst = append(dst, '\\', 't')
		default:
			dst = append(dst, '\\', 'u', '0', '0', hex[c>>4], hex[c&15])
		}
		i++
		from = i
	}
	return append(dst, s[from:]...)
}

func load64[T []byte | string](s T, i int) uint64 {
	_ = s[i+7]
	return uint64(s[i]) | uint64(s[i+1])<<8 | uint64(s[i+2])<<16 | uint64(s[i+3])<<24 |
		uint64(s[i+4])<<32 | uint64(s[i+5])<<40 | uint64(s[i+6])<<48 | uint64(s[i+7])<<56
}

// runeLen returns the length of the rune at i, or 0 when there is no valid one.
func runeLen[T []byte | string](s T, i int) int {
	var four [utf8.UTFMax]byte
	n := copy(four[:], s[i:min(i+utf8.UTFMax, len(s))])
	r, size := utf8.DecodeRune(four[:n])
	if r == utf8.RuneError && size <= 1 {
		return 0
	}
	return size
}

// SanitizeLine returns text as it will read once it has been through JSON: each
// byte that is no UTF-8 replaced by U+FFFD. It returns text itself when there is
// nothing to replace, else what it appended to scratch.
func SanitizeLine(scratch, text []byte) []byte {
	if utf8.Valid(text) {
		return text
	}
	for len(text) > 0 {
		r, n := utf8.DecodeRune(text)
		scratch = utf8.AppendRune(scratch, r)
		text = text[n:]
	}
	return scratch
}
