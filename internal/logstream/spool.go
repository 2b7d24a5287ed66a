package logstream

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"os"
)

// spool keeps batches in files, oldest first. The files are of mode 0600 and
// removed as soon as everything in them was taken out.
//
// A record is a header and the encoded lines. The header (little endian) has a
// mark, the length of the lines in bytes, a CRC-32C of all that follows it, the
// index of the step, the number of lines, and the number of the line after the
// last.
type spool struct {
	dir   string
	limit int64
	bytes int64 // in all files
	files []*spoolFile
	count int // records not taken yet
}

type spoolFile struct {
	f       *os.File
	size    int64
	records []record // not taken yet
}

// record is what the program itself remembers of a record, so that a damaged one
// does not hide those behind it.
type record struct {
	w     *Writer
	at    int64
	size  int // of the lines
	lines int
	end   int64
}

const (
	recordMark   = 0x314C534C // "LSL1"
	recordHeader = 4 + 4 + 4 + 4 + 4 + 8
	fileBytes    = 32 << 20 // a file that is this large gets no more
)

var crcTable = crc32.MakeTable(crc32.Castagnoli)

func (r record) header(lines []byte) []byte {
	h := make([]byte, 12, recordHeader)
	binary.LittleEndian.PutUint32(h, recordMark)
	binary.LittleEndian.PutUint32(h[4:], uint32(r.size))       //nolint:gosec // a few MiB
	h = binary.LittleEndian.AppendUint32(h, uint32(r.w.index)) //nolint:gosec // at most api.MaxSteps
	h = binary.LittleEndian.AppendUint32(h, uint32(r.lines))   //nolint:gosec // at most the size
	h = binary.LittleEndian.AppendUint64(h, uint64(r.end))     //nolint:gosec // never negative
	sum := crc32.Update(crc32.Checksum(h[12:], crcTable), crcTable, lines)
	binary.LittleEndian.PutUint32(h[8:], sum)
	return h
}

func (s *spool) len() int { return s.count }

// room reports whether another batch may be put.
func (s *spool) room() bool { return s.dir != "" && s.bytes < s.limit }

// put adds a batch. When it fails, nothing was added.
func (s *spool) put(b *batch) error {
	if n := len(s.files); n == 0 || s.files[n-1].size >= fileBytes {
		if err := os.MkdirAll(s.dir, 0o700); err != nil {
			return err
		}
		f, err := os.CreateTemp(s.dir, "log-*.spool") // mode 0600
		if err != nil {
			return err
		}
		s.files = append(s.files, &spoolFile{f: f})
	}
	file := s.files[len(s.files)-1]
	lines := b.enc.Raw()
	r := record{w: b.w, at: file.size, size: len(lines), lines: b.enc.Lines(), end: b.end}
	_, err := file.f.WriteAt(r.header(lines), r.at)
	if err == nil {
		_, err = file.f.WriteAt(lines, r.at+recordHeader)
	}
	if err != nil {
		return errors.Join(err, file.f.Truncate(file.size))
	}
	file.size += recordHeader + int64(r.size)
	s.bytes += recordHeader + int64(r.size)
	file.records = append(file.records, r)
	s.count++
	return nil
}

// get takes the oldest record out, into b. On an error b has its step and
// numbers, but no lines; how many there should be is returned either way.
func (s *spool) get(b *batch) (lines int, err error) {
	file := s.files[0]
	r := file.records[0]
	file.records = file.records[1:]
	s.count--
	b.w, b.end = r.w, r.end
	err = b.enc.Load(r.size, r.lines, func(p []byte) error { return file.read(r, p) })
	if err != nil {
		b.enc.Reset(b.enc.Buffer())
	}
	if len(file.records) == 0 && (file.size >= fileBytes || s.count == 0) {
		s.files = s.files[1:]
		s.bytes -= file.size
		file.remove()
	}
	return r.lines, err
}

func (f *spoolFile) read(r record, p []byte) error {
	var header [recordHeader]byte
	if _, err := f.f.ReadAt(header[:], r.at); err != nil {
		return err
	}
	if _, err := f.f.ReadAt(p, r.at+recordHeader); err != nil {
		return err
	}
	if string(header[:]) != string(r.header(p)) {
		return fmt.Errorf("%s: the record at byte %d does not match its checksum", f.f.Name(), r.at)
	}
	return nil
}

func (f *spoolFile) remove() {
	_ = os.Remove(f.f.Name()) // it may be gone with its directory
	_ = f.f.Close()
}

func (s *spool) close() {
	for _, f := range s.files {
		f.remove()
	}
	s.files, s.count, s.bytes = nil, 0, 0
}
