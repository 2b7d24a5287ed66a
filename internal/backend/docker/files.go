package docker

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/longshore-run/longshore/internal/api"
)

// jobArchive is the tar that puts a job's file, and the directories it needs,
// into its container at "/". Every entry belongs to the job's user, so that the
// file can have mode 0600.
func jobArchive(job api.JobFile, user account, now time.Time) (io.Reader, error) {
	data, err := json.Marshal(job)
	if err != nil {
		return nil, fmt.Errorf("encode job file: %w", err)
	}
	entries := []tar.Header{
		{Name: "longshore/", Typeflag: tar.TypeDir, Mode: 0o755},
		{Name: jobDir[1:] + "/", Typeflag: tar.TypeDir, Mode: 0o700, Uid: user.UID, Gid: user.GID},
		{Name: jobFilePath[1:], Typeflag: tar.TypeReg, Mode: 0o600, Uid: user.UID, Gid: user.GID, Size: int64(len(data))},
	}
	if job.Directory == workDir {
		entries = append(entries, tar.Header{Name: workDir[1:] + "/", Typeflag: tar.TypeDir, Mode: 0o755, Uid: user.UID, Gid: user.GID})
	}
	var buffer bytes.Buffer
	archive := tar.NewWriter(&buffer)
	for i := range entries {
		entries[i].ModTime = now
		if err := archive.WriteHeader(&entries[i]); err != nil {
			return nil, err
		}
		if entries[i].Typeflag != tar.TypeReg {
			continue
		}
		if _, err := archive.Write(data); err != nil {
			return nil, err
		}
	}
	return &buffer, archive.Close()
}

// writeExecutorArchive writes the tar that fills an executor's volume: the
// executor, then the marker that says it is complete.
func writeExecutorArchive(w io.Writer, executor string, marker string) error {
	file, err := os.Open(executor)
	if err != nil {
		return err
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		return err
	}
	archive := tar.NewWriter(w)
	err = archive.WriteHeader(&tar.Header{
		Name: "longshore-executor", Typeflag: tar.TypeReg, Mode: 0o755, Size: info.Size(), ModTime: info.ModTime(),
	})
	if err != nil {
		return err
	}
	if _, err := io.Copy(archive, file); err != nil {
		return err
	}
	err = archive.WriteHeader(&tar.Header{Name: marker, Typeflag: tar.TypeReg, Mode: 0o444, ModTime: info.ModTime()})
	if err != nil {
		return err
	}
	return archive.Close()
}
