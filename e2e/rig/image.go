package rig

import (
	"archive/tar"
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"

	"github.com/docker/docker/api/types/image"
	"github.com/docker/docker/client"
)

// ImportImage makes a small job image without a registry: the static busybox
// with its applets, and the stand-in as /usr/bin/pulumi. to names another engine
// than that of the environment.
func ImportImage(ctx context.Context, reference, busybox, standin string, to ...client.Opt) error {
	docker, err := client.NewClientWithOpts(append([]client.Opt{client.FromEnv, client.WithAPIVersionNegotiation()}, to...)...)
	if err != nil {
		return fmt.Errorf("import %s: %w", reference, err)
	}
	defer docker.Close()
	root, err := imageRoot(busybox, standin)
	if err != nil {
		return fmt.Errorf("import %s: %w", reference, err)
	}
	progress, err := docker.ImageImport(ctx, image.ImportSource{Source: root, SourceName: "-"}, reference, image.ImportOptions{
		Changes: []string{"ENV PATH=/usr/local/bin:/usr/bin:/bin HOME=/root", "CMD [\"sh\"]"},
	})
	if err != nil {
		return fmt.Errorf("import %s: %w", reference, err)
	}
	defer progress.Close()
	_, err = io.Copy(io.Discard, progress)
	return err
}

// applets are the names under which the image knows busybox.
var applets = []string{
	"sh", "cat", "cp", "cut", "date", "echo", "env", "false", "find", "grep", "gunzip", "head", "id", "kill",
	"ln", "ls", "mkdir", "mv", "ps", "pwd", "rm", "sed", "seq", "sleep", "sort", "stat", "tail", "test", "touch",
	"tr", "true", "uname", "wc", "wget", "yes", "base64", "dd", "setsid", "timeout", "sha256sum",
}

func imageRoot(busybox, standin string) (io.Reader, error) {
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	add := func(h tar.Header, content []byte) error {
		h.Size = int64(len(content))
		if err := w.WriteHeader(&h); err != nil {
			return err
		}
		_, err := w.Write(content)
		return err
	}
	for _, dir := range []string{"bin", "usr", "usr/bin", "usr/local", "usr/local/bin", "etc", "root", "tmp"} {
		mode := int64(0o755)
		if dir == "tmp" {
			mode = 0o1777
		}
		if err := add(tar.Header{Typeflag: tar.TypeDir, Name: dir + "/", Mode: mode}, nil); err != nil {
			return nil, err
		}
	}
	for name, path := range map[string]string{"bin/busybox": busybox, "usr/bin/pulumi": standin} {
		content, err := os.ReadFile(path)
		if err != nil {
			return nil, err
		}
		if err := add(tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o755}, content); err != nil {
			return nil, err
		}
	}
	for _, name := range applets {
		if err := add(tar.Header{Typeflag: tar.TypeSymlink, Name: "bin/" + name, Linkname: "busybox", Mode: 0o777}, nil); err != nil {
			return nil, err
		}
	}
	if err := add(tar.Header{Typeflag: tar.TypeReg, Name: "etc/passwd", Mode: 0o644}, []byte("root:x:0:0:root:/root:/bin/sh\nrunner:x:1000:1000:runner:/tmp:/bin/sh\n")); err != nil {
		return nil, err
	}
	return &buf, w.Close()
}

// ImportDebian makes a job image of a minimal Debian by debootstrap. The root is
// kept as a tar file at cache, so that only the first call takes its minute.
func ImportDebian(ctx context.Context, reference, debootstrap, cache string) error {
	if _, err := os.Stat(cache); err != nil {
		if err := debian(ctx, debootstrap, cache); err != nil {
			return fmt.Errorf("import %s: %w", reference, err)
		}
	}
	root, err := os.Open(cache)
	if err != nil {
		return fmt.Errorf("import %s: %w", reference, err)
	}
	defer root.Close()
	docker, err := client.NewClientWithOpts(client.FromEnv, client.WithAPIVersionNegotiation())
	if err != nil {
		return fmt.Errorf("import %s: %w", reference, err)
	}
	defer docker.Close()
	progress, err := docker.ImageImport(ctx, image.ImportSource{Source: root, SourceName: "-"}, reference, image.ImportOptions{
		Changes: []string{"ENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "CMD [\"bash\"]"},
	})
	if err != nil {
		return fmt.Errorf("import %s: %w", reference, err)
	}
	defer progress.Close()
	_, err = io.Copy(io.Discard, progress)
	return err
}

func debian(ctx context.Context, debootstrap, cache string) error {
	dir, err := os.MkdirTemp("", "longshore-debian-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	if err := os.MkdirAll(filepath.Dir(cache), 0o755); err != nil { //nolint:gosec // a cache of public packages
		return err
	}
	for _, args := range [][]string{
		{debootstrap, "--variant=minbase", "bookworm", filepath.Join(dir, "root")},
		{"tar", "-C", filepath.Join(dir, "root"), "--numeric-owner", "--exclude=./var/cache/apt/archives/*.deb", "-cf", cache + ".new", "."},
	} {
		if out, err := exec.CommandContext(ctx, args[0], args[1:]...).CombinedOutput(); err != nil {
			return fmt.Errorf("%s: %w: %s", args[0], err, out[max(0, len(out)-2000):])
		}
	}
	return os.Rename(cache+".new", cache)
}
