package client

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"time"

	"github.com/longshore-run/longshore/internal/api"
)

// Stack makes the calls that a job makes for its own stack, with the token that
// it uses in place of a user's. It is safe for concurrent use.
type Stack struct {
	c     *Client
	path  string
	token string
}

// Stack returns a view of c that authenticates with an access token.
func (c *Client) Stack(organization, project, stack, token string) *Stack {
	return &Stack{c: c, token: token, path: "/api/stacks/" + url.PathEscape(organization) + "/" + url.PathEscape(project) + "/" + url.PathEscape(stack)}
}

// CacheURL is a presigned URL of an entry of the dependency cache.
type CacheURL struct {
	URL  secretURL `json:"url"`
	Key  string    `json:"key"`  // of the entry that it opens; empty: as asked
	Size int64     `json:"size"` // of the entry, 0 when the service does not say
	// Chunked says that a PUT to the URL needs no Content-Length.
	Chunked bool `json:"chunked"`
}

// secretURL is a URL that lets whoever has it do what it is for. Printing it
// shows nothing.
type secretURL string

func (secretURL) String() string   { return "[secret]" }
func (secretURL) GoString() string { return "[secret]" }

// CacheURL asks for a URL to get or put the entry with a key. With GET and a
// prefix, a service that knows the extension may answer with the newest entry
// whose key begins with it.
func (s *Stack) CacheURL(ctx context.Context, method, key, prefix string) (CacheURL, error) {
	body, err := json.Marshal(struct {
		Method string `json:"method"`
		Key    string `json:"key"`
		Prefix string `json:"prefix,omitempty"`
	}{method, key, prefix})
	if err != nil {
		return CacheURL{}, fmt.Errorf("encode request for a cache url: %w", err)
	}
	var u CacheURL
	cl := call{name: "cache-url", method: http.MethodPost, path: s.path + "/deployments/cache/url", body: body}
	cl.check = func(reply) error {
		if u.URL == "" {
			return errors.New("the reply names no URL")
		}
		return nil
	}
	err = s.c.retry(ctx, func() error {
		u = CacheURL{}
		return s.once(ctx, cl, &u)
	})
	return u, err
}

// DropCacheEntry removes one entry of the dependency cache. That the service has
// no such entry, or no such call, is no error.
func (s *Stack) DropCacheEntry(ctx context.Context, key string) error {
	cl := call{name: "cache-drop", method: http.MethodDelete, path: s.path + "/deployments/cache/entries/" + url.PathEscape(key)}
	err := s.c.retry(ctx, func() error { return s.once(ctx, cl, nil) })
	var e *api.Error
	if errors.As(err, &e) && (e.Code == http.StatusNotFound || e.Code == http.StatusMethodNotAllowed) {
		return nil
	}
	return err
}

func (s *Stack) once(ctx context.Context, cl call, v any) error {
	token, err := usable(s.token)
	if err != nil {
		return s.c.fail(cl, time.Now(), OutcomeNotTried, 0, fmt.Errorf("access token: %w", err))
	}
	cl.token = token
	_, err = s.c.decode(ctx, cl, v)
	return err
}
