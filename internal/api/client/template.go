package client

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"strings"
)

// Template names a template of the service's registry.
type Template struct {
	Source, Publisher, Name string
	Version                 string // "latest" for the newest
}

// ParseTemplate reads registry://templates/<source>/<publisher>/<name>[@version].
func ParseTemplate(sourceURL string) (Template, error) {
	malformed := errors.New("not a template of a registry: write it as registry://templates/<source>/<publisher>/<name>[@version]")
	rest, ok := strings.CutPrefix(sourceURL, "registry://templates/")
	if !ok {
		return Template{}, malformed
	}
	rest, version, versioned := strings.Cut(rest, "@")
	if !versioned {
		version = "latest"
	}
	parts := append(strings.Split(rest, "/"), version)
	if len(parts) != 4 {
		return Template{}, malformed
	}
	for i, part := range parts {
		plain, err := url.PathUnescape(part)
		if err != nil || plain == "" || plain == "." || plain == ".." || strings.ContainsAny(plain, "/\\?#\x00") {
			return Template{}, malformed
		}
		parts[i] = plain
	}
	return Template{Source: parts[0], Publisher: parts[1], Name: parts[2], Version: parts[3]}, nil
}

// TemplateArchive returns the URL at which the archive of a template can be had,
// for a few minutes and by whoever has the URL.
func (c *Client) TemplateArchive(ctx context.Context, token string, t Template) (downloadURL string, err error) {
	cl := call{name: "template", method: http.MethodGet, path: "/api/registry/templates/" +
		url.PathEscape(t.Source) + "/" + url.PathEscape(t.Publisher) + "/" + url.PathEscape(t.Name) + "/versions/" + url.PathEscape(t.Version)}
	if cl.token, err = usable(token); err != nil {
		return "", errors.New("the access token cannot be used: " + err.Error())
	}
	var answer struct {
		DownloadURL string `json:"downloadURL"`
	}
	cl.check = func(reply) error {
		if u, err := url.Parse(answer.DownloadURL); err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http" {
			return errors.New("the template in the reply has no URL for its download")
		}
		return nil
	}
	err = c.retry(ctx, func() error {
		_, err := c.decode(ctx, cl, &answer)
		return err
	})
	return answer.DownloadURL, err
}
