package pipe

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"go.uber.org/zap"

	"github.com/longshore-run/longshore/internal/blob"
)

// Program is the name of the program that serves.
const Program = "longshore-bucket"

// startTimeout is how long a program may take to open the bucket.
const startTimeout = time.Minute

// Find returns the path of the program: beside the one that runs, else on the
// PATH.
func Find() (string, error) {
	if self, err := os.Executable(); err == nil {
		if path := filepath.Join(filepath.Dir(self), Program); executable(path) {
			return path, nil
		}
	}
	path, err := exec.LookPath(Program)
	if err != nil {
		return "", fmt.Errorf("buckets of clouds are opened by %s, which is neither beside this program nor on the PATH: put it there", Program)
	}
	return path, nil
}

func executable(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.Mode().IsRegular() && info.Mode()&0o111 != 0
}

// Options say what to start. All but Log are required.
type Options struct {
	Path string // of the program
	URL  string // of the bucket; no secret
	// Environ is what the program finds its credentials in. What is Longshore's
	// or Pulumi's own is left out.
	Environ []string
	Log     *zap.Logger
}

// Client is a bucket of another program. When that program ends, it is started
// again for the next call.
type Client struct {
	o Options

	mu     sync.Mutex
	proc   *process // nil when none runs
	closed bool
}

var _ blob.Bucket = (*Client)(nil)

// Open starts the program and waits until it has opened the bucket. The caller
// closes the Client, which ends the program.
func Open(ctx context.Context, o Options) (*Client, error) {
	if o.Log == nil {
		o.Log = zap.NewNop()
	}
	c := &Client{o: o}
	if _, err := c.running(ctx); err != nil {
		return nil, err
	}
	return c, nil
}

// Close ends the program.
func (c *Client) Close() error {
	c.mu.Lock()
	p := c.proc
	c.closed, c.proc = true, nil
	c.mu.Unlock()
	if p != nil {
		p.end()
	}
	return nil
}

// Handler returns nil: the cloud serves its URLs.
func (c *Client) Handler() http.Handler { return nil }

// Tidy does nothing: an upload that did not end leaves nothing.
func (c *Client) Tidy(time.Time) error { return nil }

// Sign returns a presigned URL.
func (c *Client) Sign(ctx context.Context, method, name string, life time.Duration) (string, error) {
	a, err := c.call(ctx, request{Op: "sign", Method: method, Name: name, Life: life})
	return a.URL, err
}

// Stat returns what the bucket knows of an object.
func (c *Client) Stat(ctx context.Context, name string) (blob.Object, error) {
	a, err := c.call(ctx, request{Op: "stat", Name: name})
	if err != nil {
		return blob.Object{}, err
	}
	if len(a.Objects) != 1 {
		return blob.Object{}, errors.New("the answer about an object is empty")
	}
	return a.Objects[0], nil
}

// List goes through the objects whose names begin with prefix.
func (c *Client) List(ctx context.Context, prefix string) iter.Seq2[blob.Object, error] {
	return func(yield func(blob.Object, error) bool) {
		for token := []byte(nil); ; {
			a, err := c.call(ctx, request{Op: "page", Name: prefix, Token: token})
			if err != nil {
				yield(blob.Object{}, err)
				return
			}
			for _, o := range a.Objects {
				if !yield(o, nil) {
					return
				}
			}
			if token = a.Next; len(token) == 0 {
				return
			}
		}
	}
}

// Write makes or replaces an object.
func (c *Client) Write(ctx context.Context, name string, content []byte) error {
	_, err := c.call(ctx, request{Op: "write", Name: name, Content: content})
	return err
}

// Delete removes an object.
func (c *Client) Delete(ctx context.Context, name string) error {
	_, err := c.call(ctx, request{Op: "delete", Name: name})
	return err
}

// remoteError is an error of the other program.
type remoteError struct {
	text     string
	notFound bool
}

func (e *remoteError) Error() string { return e.text }

func (e *remoteError) Is(target error) bool { return e.notFound && target == blob.ErrNotFound }

func (c *Client) call(ctx context.Context, r request) (answer, error) {
	p, err := c.running(ctx)
	if err != nil {
		return answer{}, err
	}
	a, err := p.ask(ctx, r)
	if err != nil {
		return answer{}, err
	}
	if a.Error != "" {
		return answer{}, &remoteError{a.Error, a.NotFound}
	}
	return a, nil
}

// running returns the program, started if need be.
func (c *Client) running(ctx context.Context) (*process, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return nil, errors.New("the bucket is closed")
	}
	if c.proc != nil {
		select {
		case <-c.proc.ended:
			c.o.Log.Warn(Program + " has ended, it is started again")
			c.proc.end()
			c.proc = nil
		default:
			return c.proc, nil
		}
	}
	p, err := start(ctx, c.o)
	if err != nil {
		return nil, err
	}
	c.proc = p
	return p, nil
}

// process is the running program.
type process struct {
	cmd   *exec.Cmd
	in    io.Closer
	ended chan struct{} // closed when it says no more
	parts sync.WaitGroup

	writing sync.Mutex // held while a request is written, which may take until answers are read
	encoder *json.Encoder

	mu      sync.Mutex
	last    uint64
	waiting map[uint64]chan answer
}

func start(ctx context.Context, o Options) (*process, error) {
	cmd := exec.Command(o.Path, o.URL) //nolint:gosec,noctx // the operator's own; it ends with its input
	cmd.Env = clean(o.Environ)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // a terminal's interrupt is not for it
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	complaints, err := cmd.StderrPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", o.Path, err)
	}
	p := &process{cmd: cmd, in: in, ended: make(chan struct{}), encoder: json.NewEncoder(in), waiting: map[uint64]chan answer{}}
	opened := make(chan answer, 1)
	p.waiting[0] = opened
	p.parts.Go(func() { p.listen(out) })
	p.parts.Go(func() { pass(complaints, o.Log) })
	limit := time.NewTimer(startTimeout)
	defer limit.Stop()
	select {
	case a, ok := <-opened:
		switch {
		case !ok:
			err = fmt.Errorf("%s ended at once", o.Path)
		case a.Error != "":
			err = errors.New(a.Error)
		}
	case <-limit.C:
		err = fmt.Errorf("%s did not open the bucket within %v", o.Path, startTimeout)
	case <-ctx.Done():
		err = context.Cause(ctx)
	}
	if err != nil {
		p.end()
		return nil, err
	}
	return p, nil
}

// listen hands answers to those who wait for them until there are no more.
func (p *process) listen(out io.Reader) {
	for answers := json.NewDecoder(out); ; {
		var a answer
		if err := answers.Decode(&a); err != nil {
			break
		}
		p.mu.Lock()
		if to := p.waiting[a.ID]; to != nil {
			to <- a // has room for one
			delete(p.waiting, a.ID)
		}
		p.mu.Unlock()
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	for id, to := range p.waiting {
		close(to)
		delete(p.waiting, id)
	}
	close(p.ended)
}

func (p *process) ask(ctx context.Context, r request) (answer, error) {
	to := make(chan answer, 1)
	p.mu.Lock()
	p.last++
	r.ID = p.last
	p.waiting[r.ID] = to
	p.mu.Unlock()
	p.writing.Lock()
	err := p.encoder.Encode(r)
	p.writing.Unlock()
	defer func() {
		p.mu.Lock()
		delete(p.waiting, r.ID)
		p.mu.Unlock()
	}()
	if err != nil {
		return answer{}, fmt.Errorf("ask %s: %w", Program, err)
	}
	select {
	case a, ok := <-to:
		if !ok {
			return answer{}, fmt.Errorf("%s ended before it answered", Program)
		}
		return a, nil
	case <-p.ended:
		return answer{}, fmt.Errorf("%s ended before it answered", Program)
	case <-ctx.Done():
		return answer{}, context.Cause(ctx)
	}
}

// endTimeout is how long a program may take to end when it is told to.
const endTimeout = 5 * time.Second

// end ends the program by ending its input, and waits for it.
func (p *process) end() {
	_ = p.in.Close()
	kill := time.AfterFunc(endTimeout, func() { _ = p.cmd.Process.Kill() })
	defer kill.Stop()
	p.parts.Wait()
	_ = p.cmd.Wait() // how it ends tells nothing that is not known
}

// pass logs what the program complains of.
func pass(from io.Reader, log *zap.Logger) {
	for lines := bufio.NewScanner(from); lines.Scan(); {
		log.Warn(Program, zap.String("says", lines.Text()))
	}
	_, _ = io.Copy(io.Discard, from) // a line that is too long
}

// clean leaves out the variables that hold our own secrets.
func clean(environ []string) (out []string) {
	for _, entry := range environ {
		if !strings.HasPrefix(entry, "LONGSHORE_") && !strings.HasPrefix(entry, "PULUMI_") {
			out = append(out, entry)
		}
	}
	return out
}
