package redact

import (
	"encoding/binary"
	"math/bits"
	"strings"
)

// matcher finds needles. It never changes once it is made.
//
// Looking at every byte with an automaton costs a dependent memory access each.
// Instead only every stride-th window of four bytes is looked up, in a bitmap
// that holds the first stride windows of every needle: wherever a needle starts,
// one of these falls on a multiple of stride. The few positions that pass are
// decided by a radix tree of the needles, so that any number of needles with a
// common beginning costs one walk.
type matcher struct {
	needles []string // sorted, each at least window bytes
	longest int

	stride int // 1 to maxStride, at most the length of the shortest needle less window-1
	shift  int // of a hash, to get an index of a bit
	bitmap []uint64
	starts []uint64 // the same, of the first windows alone

	roots map[uint32]*node // by the first window
}

const (
	window    = 4
	maxStride = 8
)

// node is one of the radix tree: needles that agree up to here.
type node struct {
	label string // what comes after the parent's
	end   bool   // a needle ends here
	keys  string // first bytes of the labels of next
	next  []*node
}

// newMatcher returns the matcher of needles, which are sorted and distinct.
func newMatcher(needles []string) *matcher {
	m := &matcher{needles: needles, stride: maxStride, roots: make(map[uint32]*node)}
	for _, n := range needles {
		m.longest = max(m.longest, len(n))
		m.stride = min(m.stride, len(n)-window+1)
	}
	m.fillBitmap()
	for from := 0; from < len(needles); {
		to := from + 1
		for to < len(needles) && needles[to][:window] == needles[from][:window] {
			to++
		}
		m.roots[load([]byte(needles[from][:window]))] = newNode(needles[from:to], window)
		from = to
	}
	return m
}

// fillBitmap makes the bitmap large enough that about one window in 256 passes
// by chance, within what a cache of the second level holds.
func (m *matcher) fillBitmap() {
	size := bits.Len(uint(len(m.needles)*m.stride) * 256)
	size = min(max(size, 14), 21)
	m.shift = 32 - size
	m.bitmap = make([]uint64, 1<<size/64)
	m.starts = make([]uint64, 1<<size/64)
	for _, n := range m.needles {
		for i := range m.stride {
			h := hash(load([]byte(n[i:i+window])), m.shift)
			m.bitmap[h/64] |= 1 << (h % 64)
			if i == 0 {
				m.starts[h/64] |= 1 << (h % 64)
			}
		}
	}
}

func newNode(needles []string, depth int) *node {
	first, last := needles[0], needles[len(needles)-1]
	end := depth
	for end < len(first) && end < len(last) && first[end] == last[end] {
		end++
	}
	n := &node{label: first[depth:end], end: len(first) == end}
	if n.end {
		needles = needles[1:]
	}
	var keys []byte
	for from := 0; from < len(needles); {
		to := from + 1
		for to < len(needles) && needles[to][end] == needles[from][end] {
			to++
		}
		keys = append(keys, needles[from][end])
		n.next = append(n.next, newNode(needles[from:to], end))
		from = to
	}
	n.keys = string(keys)
	return n
}

func load(b []byte) uint32 { return binary.LittleEndian.Uint32(b) }

func hash(v uint32, shift int) uint32 { return (v * 0x9E3779B1) >> (shift & 31) }

// at returns the length of the longest needle at the start of text, or 0, and
// whether text ends where a longer one could still go on.
func (m *matcher) at(text []byte) (length int, more bool) {
	if len(text) < window {
		return 0, m.begins(text)
	}
	n := m.roots[load(text)]
	depth := window
	for n != nil {
		rest := text[depth:]
		if len(rest) < len(n.label) {
			return length, n.label[:len(rest)] == string(rest)
		}
		if string(rest[:len(n.label)]) != n.label {
			return length, false
		}
		depth += len(n.label)
		if n.end {
			length = depth
		}
		if depth == len(text) {
			return length, len(n.next) > 0
		}
		i := strings.IndexByte(n.keys, text[depth])
		if i < 0 {
			return length, false
		}
		n = n.next[i]
	}
	return length, false
}

// begins reports whether a needle begins with text, which is shorter than one.
func (m *matcher) begins(text []byte) bool {
	lo, hi := 0, len(m.needles)
	for lo < hi {
		mid := int(uint(lo+hi) >> 1)
		if m.needles[mid] < string(text) {
			lo = mid + 1
		} else {
			hi = mid
		}
	}
	return lo < len(m.needles) && strings.HasPrefix(m.needles[lo], string(text))
}

// candidates calls try for each position of text, from low to high, at which a
// needle may start, until it returns false.
func (m *matcher) candidates(text []byte, try func(pos int) bool) {
	i, stride, shift, bitmap := 0, m.stride, m.shift, m.bitmap
	for ; i+window <= len(text); i += stride {
		h := hash(load(text[i:]), shift)
		if bitmap[h/64]>>(h%64)&1 == 0 {
			continue
		}
		for pos := max(i-stride+1, 0); pos <= i; pos++ {
			h := hash(load(text[pos:]), shift)
			if m.starts[h/64]>>(h%64)&1 != 0 && !try(pos) {
				return
			}
		}
	}
	for pos := max(i-stride+1, 0); pos < len(text); pos++ { // no whole window after these
		if !try(pos) {
			return
		}
	}
}
