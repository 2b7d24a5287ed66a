// Package pipe lets a program use the bucket of a cloud without the libraries of
// the cloud: they are in another program, which it starts and speaks to over
// standard input and output. Client is a blob.Bucket; Serve is what the other
// program does. Both ends are of the same release, and the protocol is theirs
// alone: one JSON object for each request and each answer, in any order.
package pipe

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/longshore-run/longshore/internal/blob"
)

// request asks for one thing.
type request struct {
	ID      uint64        `json:"id"`
	Op      string        `json:"op"` // sign, stat, page, write or delete
	Name    string        `json:"name,omitempty"`
	Method  string        `json:"method,omitempty"`
	Life    time.Duration `json:"life,omitempty"`
	Token   []byte        `json:"token,omitempty"` // of the page
	Content []byte        `json:"content,omitempty"`
}

// answer is the answer to it. The first answer of all has no request: it says
// that the bucket is open.
type answer struct {
	ID       uint64        `json:"id"`
	Error    string        `json:"error,omitempty"`
	NotFound bool          `json:"notFound,omitempty"`
	URL      string        `json:"url,omitempty"`
	Objects  []blob.Object `json:"objects,omitempty"`
	Next     []byte        `json:"next,omitempty"`
}

// Limits of a program that serves.
const (
	pageSize    = 1000
	concurrency = 16
	callTimeout = time.Minute
)

// Bucket is what Serve serves: a bucket that can be listed page by page.
type Bucket interface {
	blob.Bucket
	Page(ctx context.Context, prefix string, token []byte, size int) (objects []blob.Object, next []byte, err error)
}

// Serve answers the requests that come in until they end, or ctx does.
func Serve(ctx context.Context, b Bucket, in io.Reader, out io.Writer) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var calls sync.WaitGroup
	defer calls.Wait()
	var mu sync.Mutex
	encoder := json.NewEncoder(out)
	say := func(a answer) {
		mu.Lock()
		defer mu.Unlock()
		if err := encoder.Encode(a); err != nil {
			cancel(fmt.Errorf("answer: %w", err))
		}
	}
	say(answer{})
	slots := make(chan struct{}, concurrency)
	for requests := json.NewDecoder(in); ctx.Err() == nil; {
		var r request
		err := requests.Decode(&r)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("read request: %w", err)
		}
		slots <- struct{}{}
		calls.Go(func() {
			defer func() { <-slots }()
			call, done := context.WithTimeout(ctx, callTimeout)
			defer done()
			say(do(call, b, r))
		})
	}
	return context.Cause(ctx)
}

// Refuse tells the program that started this one why there is no bucket.
func Refuse(out io.Writer, err error) error {
	return json.NewEncoder(out).Encode(answer{Error: err.Error()})
}

func do(ctx context.Context, b Bucket, r request) answer {
	a := answer{ID: r.ID}
	var err error
	switch r.Op {
	case "sign":
		a.URL, err = b.Sign(ctx, r.Method, r.Name, r.Life)
	case "stat":
		var o blob.Object
		if o, err = b.Stat(ctx, r.Name); err == nil {
			a.Objects = []blob.Object{o}
		}
	case "page":
		a.Objects, a.Next, err = b.Page(ctx, r.Name, r.Token, pageSize)
	case "write":
		err = b.Write(ctx, r.Name, r.Content)
	case "delete":
		err = b.Delete(ctx, r.Name)
	default:
		err = fmt.Errorf("no such operation: %q", r.Op)
	}
	if err != nil {
		a.Error, a.NotFound = err.Error(), errors.Is(err, blob.ErrNotFound)
	}
	return a
}
