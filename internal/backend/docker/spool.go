package docker

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"strings"

	"github.com/containerd/errdefs"

	"github.com/longshore-run/longshore/internal/api"
	"github.com/longshore-run/longshore/internal/backend"
)

const (
	spoolDir = jobDir + "/spool" // where the executor keeps lines that wait: beside its report
	keptDir  = jobDir + "/" + api.KeptName
	// maxCopy bounds what is copied out of a container. The executor's own
	// cap is far below it for a spool; a job could write more there.
	maxCopy = 1 << 30
)

// Spool copies the executor's spool out of its container.
func (w *workload) Spool(ctx context.Context, dir string) (string, error) {
	return w.copyOut(ctx, spoolDir, dir, maxCopy)
}

// Kept copies what the job leaves out of its container.
func (w *workload) Kept(ctx context.Context, dir string) (string, error) {
	return w.copyOut(ctx, keptDir, dir, maxCopy)
}

// copyOut copies the files of a directory of the container into dir. It returns
// "" when there are none.
func (w *workload) copyOut(ctx context.Context, from, dir string, most int64) (string, error) {
	stream, _, err := w.backend.client.CopyFromContainer(ctx, w.id, from)
	if errdefs.IsNotFound(err) {
		if _, err := w.backend.client.ContainerInspect(ctx, w.id); errdefs.IsNotFound(err) {
			return "", backend.ErrGone
		}
		return "", nil
	}
	if err != nil {
		return "", w.backend.explain(ctx, fmt.Errorf("copy %s out of the container: %w", path.Base(from), err))
	}
	defer stream.Close()
	files, err := extractFiles(io.LimitReader(stream, most), path.Base(from), dir)
	if err != nil {
		return "", fmt.Errorf("copy %s out of the container: %w", path.Base(from), err)
	}
	if files == 0 {
		return "", nil
	}
	return dir, nil
}

// extractFiles writes the regular files that an archive has directly below a
// directory into dir. It takes nothing else: no link, no directory, no name that
// leads elsewhere. A file that is cut off is kept as far as it goes.
func extractFiles(r io.Reader, below, dir string) (files int, err error) {
	archive := tar.NewReader(r)
	for {
		header, err := archive.Next()
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			return files, nil
		}
		if err != nil {
			return files, err
		}
		in, name := path.Split(header.Name)
		if header.Typeflag != tar.TypeReg || strings.Trim(in, "/") != below || !filepath.IsLocal(name) {
			continue
		}
		if err := extractFile(archive, filepath.Join(dir, name)); err != nil {
			return files, err
		}
		files++
	}
}

func extractFile(r io.Reader, name string) error {
	f, err := os.OpenFile(name, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(f, r)
	if errors.Is(err, io.ErrUnexpectedEOF) {
		err = nil
	}
	return errors.Join(err, f.Close())
}
