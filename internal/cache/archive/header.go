package archive

import (
	"archive/tar"
	"bytes"
	"strconv"
	"strings"
	"time"
)

// What stands before each entry is ours to read and write, as archive/tar takes
// as long for it as the rest of the work does: a block in the form "ustar", and
// before it, for what that cannot hold, another of type x with records in the
// form "length key=value". Entries that are unusual go by way of archive/tar.

// header is what is known of an entry.
type header struct {
	name, link string
	kind       byte // of archive/tar's Type constants
	mode       int64
	size       int64
	modified   time.Time
}

// Where the fields of a block are.
const (
	atMode, atSize, atTime, atSum, atKind, atLink, atMagic = 100, 124, 136, 148, 156, 157, 257

	mostName   = 100
	mostNumber = 1<<33 - 1 // 11 octal digits
)

// append writes the header of an entry to the end of b.
func (h *header) append(b []byte) ([]byte, error) {
	if h.size > mostNumber || h.modified.Unix() < 0 || h.modified.Unix() > mostNumber {
		to := sink{b}
		err := tar.NewWriter(&to).WriteHeader(&tar.Header{
			Typeflag: h.kind, Name: h.name, Linkname: h.link, Mode: h.mode, Size: h.size, ModTime: h.modified, Format: tar.FormatPAX,
		})
		return to.b, err
	}
	start := len(b)
	b = append(b, zeros[:block]...)
	for _, field := range [...]struct {
		key, value string
		most       int
	}{{"path", h.name, mostName}, {"linkpath", h.link, mostName}} {
		if len(field.value) > field.most || !ascii(field.value) {
			b = appendRecord(b, field.key, field.value)
		}
	}
	if ns := h.modified.Nanosecond(); ns != 0 {
		digits := strconv.Itoa(1_000_000_000 + ns)[1:]
		b = appendRecord(b, "mtime", strconv.FormatInt(h.modified.Unix(), 10)+"."+strings.TrimRight(digits, "0"))
	}
	if records := int64(len(b) - start - block); records > 0 {
		b = append(b, zeros[:padding(records)]...)
		fillBlock(b[start:start+block], header{name: "pax", kind: tar.TypeXHeader, mode: 0o644, size: records})
		start = len(b)
		b = append(b, zeros[:block]...)
	}
	fillBlock(b[start:start+block], *h)
	return b, nil
}

var zeros [block]byte

func ascii(text string) bool {
	for _, c := range []byte(text) {
		if c < ' ' || c > '~' {
			return false
		}
	}
	return true
}

// appendRecord appends "length key=value\n", where length counts itself.
func appendRecord(b []byte, key, value string) []byte {
	rest := len(key) + len(value) + 3
	n := rest + len(strconv.Itoa(rest))
	n = rest + len(strconv.Itoa(n)) // the digit more that a 98 becomes by counting itself
	b = strconv.AppendInt(b, int64(n), 10)
	b = append(append(append(append(b, ' '), key...), '='), value...)
	return append(b, '\n')
}

// fillBlock writes the fields of a block that is all zeros.
func fillBlock(b []byte, h header) {
	copy(b[:mostName], h.name)
	octal(b[atMode:atMode+7], h.mode)
	octal(b[atMode+8:atMode+15], 0)  // owner
	octal(b[atMode+16:atMode+23], 0) // group
	octal(b[atSize:atSize+11], h.size)
	octal(b[atTime:atTime+11], max(h.modified.Unix(), 0))
	b[atKind] = h.kind
	copy(b[atLink:atLink+mostName], h.link)
	copy(b[atMagic:], "ustar\x0000")
	octal(b[atSum:atSum+6], checksum(b))
	b[atSum+7] = ' '
}

// octal fills b with the digits of n.
func octal(b []byte, n int64) {
	for i := len(b) - 1; i >= 0; i-- {
		b[i] = '0' + byte(n&7)
		n >>= 3
	}
}

// checksum adds up the bytes of a block, its own field as if it were blank.
func checksum(b []byte) int64 {
	sum := int64(8 * ' ')
	for _, c := range b[:atSum] {
		sum += int64(c)
	}
	for _, c := range b[atSum+8 : block] {
		sum += int64(c)
	}
	return sum
}

// parseHeader reads the header at the beginning of b and returns what follows.
// At the end of the entries it returns a header without a kind.
func parseHeader(b []byte) (h header, rest []byte, err error) {
	if len(b) == 0 || len(b) >= block && bytes.Equal(b[:block], zeros[:]) {
		return header{}, nil, nil
	}
	if h, rest, err = parseBlock(b); err != nil || h.kind != tar.TypeXHeader {
		return h, rest, err
	}
	if h.size < 0 || h.size > int64(len(rest)) || h.size+padding(h.size) > int64(len(rest)) {
		return h, nil, wrong("it is damaged: a header is cut off")
	}
	records, rest := rest[:h.size], rest[h.size+padding(h.size):]
	if h, rest, err = parseBlock(rest); err != nil {
		return h, nil, err
	}
	return h, rest, h.apply(records)
}

func parseBlock(b []byte) (h header, rest []byte, err error) {
	if len(b) < block || string(b[atMagic:atMagic+5]) != "ustar" {
		return h, nil, wrong("it is damaged: a header is missing")
	}
	numbers := [4]int64{}
	for i, field := range [][]byte{b[atMode : atMode+8], b[atSize : atSize+12], b[atTime : atTime+12], b[atSum : atSum+8]} {
		if numbers[i], err = parseOctal(field); err != nil {
			return h, nil, err
		}
	}
	if numbers[3] != checksum(b) {
		return h, nil, wrong("it is damaged: the sum of a header is wrong")
	}
	h = header{
		name: text(b[:mostName]), link: text(b[atLink : atLink+mostName]), kind: b[atKind],
		mode: numbers[0], size: numbers[1], modified: time.Unix(numbers[2], 0),
	}
	return h, b[block:], nil
}

func text(field []byte) string {
	if end := bytes.IndexByte(field, 0); end >= 0 {
		field = field[:end]
	}
	return string(field)
}

func parseOctal(field []byte) (int64, error) {
	n := int64(0)
	for _, c := range field {
		switch {
		case '0' <= c && c <= '7':
			n = n<<3 | int64(c-'0')
		case c != 0 && c != ' ':
			return 0, wrong("it is damaged: a header holds no number where there should be one")
		}
	}
	return n, nil
}

// apply sets what records say.
func (h *header) apply(records []byte) error {
	for len(records) > 0 {
		digits, _, ok := bytes.Cut(records, []byte(" "))
		n, err := strconv.Atoi(string(digits))
		if !ok || err != nil || n <= len(digits)+1 || n > len(records) || records[n-1] != '\n' {
			return wrong("it is damaged: a record of a header is none")
		}
		key, value, _ := strings.Cut(string(records[len(digits)+1:n-1]), "=")
		records = records[n:]
		switch key {
		case "path":
			h.name = value
		case "linkpath":
			h.link = value
		case "size":
			h.size, err = strconv.ParseInt(value, 10, 64)
		case "mtime":
			h.modified, err = parseTime(value)
		}
		if err != nil || h.size < 0 {
			return wrong("it is damaged: %s of a header is %q", key, value)
		}
	}
	return nil
}

// parseTime reads seconds with a fraction.
func parseTime(value string) (time.Time, error) {
	whole, fraction, _ := strings.Cut(value, ".")
	seconds, err := strconv.ParseInt(whole, 10, 64)
	if err != nil || fraction == "" {
		return time.Unix(seconds, 0), err
	}
	if len(fraction) > 9 {
		fraction = fraction[:9]
	}
	ns, err := strconv.ParseUint(fraction, 10, 32)
	for range 9 - len(fraction) {
		ns *= 10
	}
	if strings.HasPrefix(whole, "-") {
		return time.Unix(seconds, -int64(ns)), err //nolint:gosec // below 10^9
	}
	return time.Unix(seconds, int64(ns)), err //nolint:gosec // below 10^9
}
