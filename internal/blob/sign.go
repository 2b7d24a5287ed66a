package blob

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"net/url"
	"strconv"
	"time"
)

// Parameters of a URL of a folder.
const (
	paramName      = "obj"
	paramMethod    = "method"
	paramExpiry    = "expiry" // unix seconds
	paramSignature = "signature"
)

// Sign returns a URL that opens an object, relative to the address at which
// Handler is served.
func (f *Folder) Sign(_ context.Context, method, name string, life time.Duration) (string, error) {
	if err := errors.Join(CheckName(name), CheckMethod(method)); err != nil {
		return "", err
	}
	expiry := strconv.FormatInt(time.Now().Add(life).Unix(), 10)
	query := url.Values{paramName: {name}, paramMethod: {method}, paramExpiry: {expiry}, paramSignature: {f.signature(method, name, expiry)}}
	return Path + "?" + query.Encode(), nil
}

// opens returns the object that a URL opens by a method, and whether it opens
// one at all. A parameter that is there more than once is none of ours.
func (f *Folder) opens(method string, query url.Values) (name string, ok bool) {
	if len(query) != 4 {
		return "", false
	}
	for _, values := range query {
		if len(values) != 1 {
			return "", false
		}
	}
	name, expiry := query.Get(paramName), query.Get(paramExpiry)
	if query.Get(paramMethod) != method || !hmac.Equal([]byte(query.Get(paramSignature)), []byte(f.signature(method, name, expiry))) {
		return "", false
	}
	seconds, err := strconv.ParseInt(expiry, 10, 64)
	return name, err == nil && time.Now().Unix() <= seconds && CheckName(name) == nil
}

// signature signs all that a URL says, each part with its length.
func (f *Folder) signature(method, name, expiry string) string {
	mac := hmac.New(sha256.New, f.o.Key)
	for _, part := range []string{method, name, expiry} {
		fmt.Fprintf(mac, "%d:%s,", len(part), part)
	}
	return base64.RawURLEncoding.EncodeToString(mac.Sum(nil))
}
