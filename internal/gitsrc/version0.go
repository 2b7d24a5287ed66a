package gitsrc

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/go-git/go-git/v5/plumbing/format/pktline"
	"github.com/go-git/go-git/v5/plumbing/protocol/packp"
	"github.com/go-git/go-git/v5/plumbing/protocol/packp/capability"
)

// version0 is git's first protocol: the server lists all its refs at once, and
// gives out one pack.
type version0 struct {
	line line
	all  *packp.AdvRefs
}

func readVersion0(in *bufio.Reader, to line) (*version0, error) {
	all := packp.NewAdvRefs()
	err := all.Decode(in)
	var (
		said       *pktline.ErrorLine
		unexpected *packp.ErrUnexpectedData
	)
	switch {
	case err == nil && all.IsEmpty(), errors.Is(err, packp.ErrEmptyAdvRefs):
		return nil, errEmpty
	case errors.Is(err, packp.ErrEmptyInput):
		return nil, io.ErrUnexpectedEOF
	case errors.As(err, &said):
		return nil, &remoteError{said: said.Text}
	case errors.As(err, &unexpected), errors.Is(err, pktline.ErrInvalidPktLen):
		return nil, fmt.Errorf("%w: %w", errNotGit, err)
	case err != nil:
		return nil, err
	}
	return &version0{line: to, all: all}, nil
}

func (v *version0) abilities() abilities {
	caps := v.all.Capabilities
	reachable := caps.Supports(capability.AllowReachableSHA1InWant) || caps.Supports("allow-any-sha1-in-want")
	return abilities{
		anyCommit: reachable || caps.Supports(capability.AllowTipSHA1InWant),
		final:     reachable,
		shallow:   caps.Supports(capability.Shallow),
	}
}

func (v *version0) refs(context.Context, []string) (*refList, error) {
	list := &refList{head: v.all.Head, names: v.all.References, peeled: v.all.Peeled}
	for _, symref := range v.all.Capabilities.Get(capability.SymRef) {
		if name, ok := strings.CutPrefix(symref, "HEAD:"); ok {
			list.headName = name
		}
	}
	return list, nil
}

func (v *version0) pack(ctx context.Context, w wish) (*answer, error) {
	caps := v.all.Capabilities
	for _, not := range []capability.Capability{capability.MultiACK, capability.MultiACKDetailed, capability.ThinPack} {
		caps.Delete(not)
	}
	req := packp.NewUploadPackRequestFromCapabilities(caps)
	req.Wants = w.want
	if w.shallow {
		_ = req.Capabilities.Set(capability.Shallow)
		req.Depth = packp.DepthCommits(1)
	}
	if err := req.Validate(); err != nil {
		return nil, err
	}
	var message bytes.Buffer
	if err := req.UploadRequest.Encode(&message); err != nil {
		return nil, err
	}
	writeLine(&message, "done")
	said, err := v.line.ask(ctx, message.Bytes())
	if err != nil {
		return nil, err
	}
	in := bufio.NewReaderSize(said, 64<<10)
	if head, _ := in.Peek(8); bytes.HasSuffix(head, []byte("ERR ")) {
		_, _, err := readPacket(in)
		return nil, errors.Join(err, said.Close())
	}
	response := packp.NewUploadPackResponse(req)
	if err := response.Decode(joined{in, said}); err != nil {
		return nil, errors.Join(err, said.Close())
	}
	return &answer{
		Closer:  said,
		shallow: response.Shallows,
		banded:  req.Capabilities.Supports(capability.Sideband64k) || req.Capabilities.Supports(capability.Sideband),
		pack:    bufio.NewReaderSize(response, 64<<10),
	}, nil
}
