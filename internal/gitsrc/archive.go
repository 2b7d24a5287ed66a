package gitsrc

import (
	"context"
	"fmt"
	"io"
	"mime"
	"net/http"
	"os"
	"path"
	"slices"
	"strings"

	"github.com/longshore-run/longshore/internal/unpack"

	"github.com/longshore-run/longshore/internal/stall"
)

// What an archive may hold, and be.
const (
	mostArchive       = 1 << 30
	mostUnpacked      = 4 << 30
	mostUnpackedFiles = 500_000
)

// isArchive reports whether the path of a URL names an archive.
func isArchive(segments []string) bool {
	if slices.Contains(segments, "tree") {
		return false
	}
	last := strings.ToLower(segments[len(segments)-1])
	return slices.ContainsFunc([]string{".tar.gz", ".tgz", ".zip"}, func(end string) bool { return strings.HasSuffix(last, end) })
}

// archive is one attempt to download an archive and to unpack it.
func (c *checkout) archive(ctx context.Context, dog *stall.Watch) (Result, error) {
	file, err := os.CreateTemp("", "longshore-archive-")
	if err != nil {
		return Result{}, err
	}
	defer os.Remove(file.Name())
	defer file.Close()
	if err := c.download(ctx, file, dog); err != nil {
		return Result{}, err
	}
	dog.Rest()
	if err := unpack.Unpack(ctx, file, c.dir, unpack.Limits{Bytes: mostUnpacked, Files: mostUnpackedFiles}); err != nil {
		return Result{}, err
	}
	return Result{}, checkRepoDir(c.req.Dir, c.req.RepoDir)
}

func (c *checkout) download(ctx context.Context, file *os.File, dog *stall.Watch) error {
	from := c.openHTTP(dog.Touch).(*httpLine)
	defer from.Close()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, c.at.String(), nil)
	if err != nil {
		return problem(KindRequest, "the URL of the archive cannot be requested", "")
	}
	req.Header.Set("User-Agent", agent)
	res, err := from.client.Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	body := stall.ReadCloser(res.Body, dog.Touch)
	if res.StatusCode != http.StatusOK {
		return from.refusal(res)
	}
	if kind, _, _ := mime.ParseMediaType(res.Header.Get("Content-Type")); kind == "text/html" {
		return problem(KindArchive, "what answered is a web page and no archive", "Check the URL, and whether it needs credentials.")
	}
	n, err := io.Copy(file, &packReader{from: io.LimitReader(body, mostArchive+1), progress: c.progress, done: dog.Rest})
	if err == nil && n > mostArchive {
		err = problem(KindArchive, fmt.Sprintf("the archive is larger than %s", size(mostArchive)), "")
	}
	if err != nil {
		return err
	}
	if _, err := file.Seek(0, io.SeekStart); err != nil {
		return err
	}
	c.progress.line("downloaded %s, %s", path.Base(c.at.path), size(n))
	return nil
}
