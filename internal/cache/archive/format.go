// Package archive writes folders into one stream and reads them back, by as many
// goroutines as there are processors and with a few MiB of memory each.
//
// An archive is a tar archive compressed with zstd, which zstd and tar can read,
// in a form that can be worked on in parallel. It is a row of chunks, each a zstd
// frame of its own. A chunk holds whole files, or one part of a file that is
// larger than a part. Before each chunk stands a skippable frame with its sizes;
// the last frame, skippable, too, is the Manifest, with the sum of all before it.
//
// In the archive, the first part of a name is that of the folder. What may not
// be there: names that unpack.Name refuses, anything but files, folders, hard
// links to files of the same folder, and symbolic links. A symbolic link is kept
// as it is, wherever it leads, because a virtual environment leads to its
// interpreter and a workspace to its packages; but all links are made last, so
// that nothing is ever written through one.
package archive

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/longshore-run/longshore/internal/unpack"
)

// format is the number of this form of archives.
const format = 1

const (
	magicChunk    = 0x184d2a5a // of the skippable frame before a chunk
	magicManifest = 0x184d2a5b

	// partSize is the most of a file that is in one chunk; a chunk holds one part,
	// or files that are together about as large.
	partSize = 2 << 20
	// mostRaw and mostManifest bound what a reader takes into memory.
	mostRaw      = 8 << 20
	mostManifest = 64 << 10

	block = 512 // of tar
)

// Folder is one directory of an archive.
type Folder struct {
	Name string // in the archive
	Path string // on disk
}

// Manifest is what an archive says of itself at its end.
type Manifest struct {
	Format  int      `json:"format"`
	Key     string   `json:"key"` // by which the archive is stored
	Folders []string `json:"folders"`
	Entries int64    `json:"entries"` // files, folders and links
	Bytes   int64    `json:"bytes"`   // of all files together
	Size    int64    `json:"size"`    // of the archive up to the manifest
	SHA256  string   `json:"sha256"`  // of the same, in hex
}

// ErrTooLarge says that an archive has more than the limit.
var ErrTooLarge = errors.New("the archive is larger than allowed")

// index is what stands before a chunk.
type index struct {
	packed, raw uint32 // sizes of the chunk
	part        uint32 // 0: the chunk begins with the header of an entry; n: it is the n-th part of the file before
}

const indexSize = 8 + 12

func (i index) append(to []byte) []byte {
	to = binary.LittleEndian.AppendUint32(to, magicChunk)
	to = binary.LittleEndian.AppendUint32(to, indexSize-8)
	to = binary.LittleEndian.AppendUint32(to, i.packed)
	to = binary.LittleEndian.AppendUint32(to, i.raw)
	return binary.LittleEndian.AppendUint32(to, i.part)
}

func parseIndex(b []byte) index {
	return index{binary.LittleEndian.Uint32(b), binary.LittleEndian.Uint32(b[4:]), binary.LittleEndian.Uint32(b[8:])}
}

// wrong is an error of the archive, not of the disk or the network.
func wrong(format string, args ...any) error {
	return &unpack.Error{Reason: fmt.Sprintf(format, args...)}
}

// padding is how much follows n bytes up to the next block.
func padding(n int64) int64 { return -n & (block - 1) }
