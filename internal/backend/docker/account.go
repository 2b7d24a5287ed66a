package docker

import (
	"archive/tar"
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"path"
	"strconv"
	"strings"

	"github.com/containerd/errdefs"
)

// account is the user and group a job's processes run as.
type account struct{ UID, GID int }

// account finds out who a job's user is in a container of an image, once per
// image.
func (b *Backend) account(ctx context.Context, containerID string, image imageFacts) (account, error) {
	user := jobUser(b.config, image)
	key := image.ID + " " + user
	b.mu.Lock()
	who, known := b.accounts[key]
	b.mu.Unlock()
	if known {
		return who, nil
	}
	who, err := b.resolve(ctx, containerID, user)
	if err != nil {
		return account{}, err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.accounts[key] = who
	return who, nil
}

// resolve finds out who user ("", "name", "uid", "name:group", "uid:gid") is in
// a container. Names are looked up in the image's own /etc/passwd and
// /etc/group, as the engine does at start.
func (b *Backend) resolve(ctx context.Context, containerID, user string) (account, error) {
	name, group, hasGroup := strings.Cut(user, ":")
	if name == "" || name == "root" || name == "0" {
		if !hasGroup {
			return account{}, nil
		}
		name = "0"
	}
	uid, uidErr := strconv.Atoi(name)
	gid, gidErr := strconv.Atoi(group)
	if uidErr == nil && hasGroup && gidErr == nil {
		return account{uid, gid}, nil
	}
	passwd, err := b.readContainerFile(ctx, containerID, "/etc/passwd")
	if err != nil {
		return account{}, err
	}
	who, err := lookupUser(passwd, name)
	if err != nil {
		return account{}, err
	}
	if !hasGroup {
		return who, nil
	}
	if gidErr == nil {
		who.GID = gid
		return who, nil
	}
	groups, err := b.readContainerFile(ctx, containerID, "/etc/group")
	if err != nil {
		return account{}, err
	}
	who.GID, err = lookupGroup(groups, group)
	return who, err
}

// lookupUser finds a user in the text of a passwd file. A number that is not
// listed is a user all the same, of group 0.
func lookupUser(passwd, name string) (account, error) {
	number, numberErr := strconv.Atoi(name)
	for line := range strings.Lines(passwd) {
		fields := strings.Split(strings.TrimSpace(line), ":")
		if len(fields) < 4 {
			continue
		}
		uid, uidErr := strconv.Atoi(fields[2])
		gid, gidErr := strconv.Atoi(fields[3])
		if uidErr != nil || gidErr != nil {
			continue
		}
		if fields[0] == name || (numberErr == nil && uid == number) {
			return account{uid, gid}, nil
		}
	}
	if numberErr == nil {
		return account{UID: number}, nil
	}
	return account{}, fmt.Errorf("user %q is not in the image's /etc/passwd: name a user that is, or a number", name)
}

func lookupGroup(groups, name string) (int, error) {
	for line := range strings.Lines(groups) {
		fields := strings.Split(strings.TrimSpace(line), ":")
		if len(fields) < 3 || fields[0] != name {
			continue
		}
		if gid, err := strconv.Atoi(fields[2]); err == nil {
			return gid, nil
		}
	}
	return 0, fmt.Errorf("group %q is not in the image's /etc/group: name a group that is, or a number", name)
}

// maxSmallFile bounds the files read out of a container: a job may have written
// them.
const maxSmallFile = 1 << 20

// errNotAFile is returned for what is there but cannot be read as a file.
var errNotAFile = errors.New("no regular file")

// readContainerFile reads a small regular file of a container, and follows one
// symbolic link. A file that does not exist is empty.
func (b *Backend) readContainerFile(ctx context.Context, containerID, name string) (string, error) {
	for range 2 {
		ctx, cancel := b.call(ctx)
		text, link, err := b.readOnce(ctx, containerID, name)
		cancel()
		switch {
		case errdefs.IsNotFound(err):
			return "", nil
		case err != nil:
			return "", fmt.Errorf("read %s of the container: %w", name, err)
		case link == "":
			return text, nil
		}
		if !path.IsAbs(link) {
			link = path.Join(path.Dir(name), link)
		}
		name = link
	}
	return "", fmt.Errorf("read %s of the container: %w", name, errNotAFile)
}

// readOnce returns the text of a file, or where the link points.
func (b *Backend) readOnce(ctx context.Context, containerID, name string) (text, link string, err error) {
	stream, stat, err := b.client.CopyFromContainer(ctx, containerID, name)
	if err != nil {
		return "", "", err
	}
	defer stream.Close()
	if stat.LinkTarget != "" {
		return "", stat.LinkTarget, nil
	}
	archive := tar.NewReader(bufio.NewReader(stream))
	header, err := archive.Next()
	if err != nil {
		return "", "", err
	}
	if header.Typeflag != tar.TypeReg || header.Size > maxSmallFile {
		return "", "", errNotAFile
	}
	data, err := io.ReadAll(io.LimitReader(archive, maxSmallFile))
	return string(data), "", err
}
