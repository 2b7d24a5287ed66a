// Command longshore-bucket opens the bucket of a cloud for a longshore-server or
// a longshore-agent, which start it when they are configured with one. The
// libraries of the clouds are large, and so they are in a program of their own.
package main

import (
	"context"
	"fmt"
	"io"
	"os"

	"github.com/longshore-run/longshore/internal/blob/cloud"
	"github.com/longshore-run/longshore/internal/blob/pipe"
)

// version is set by the linker.
var version = "dev"

func main() { os.Exit(run(context.Background(), os.Args[1:], os.Stdin, os.Stdout, os.Stderr)) }

const usage = `longshore-bucket opens a bucket (s3://, gs:// or azblob://) for longshore-server and
longshore-agent. They start it by themselves, from beside them or from the PATH;
there is nothing to be done with it by hand.

Usage: longshore-bucket URL
`

// run serves the bucket until its input ends. Exit status: 0 done, 1 failed, 2
// wrong usage.
func run(ctx context.Context, args []string, in io.Reader, out, complaints io.Writer) int {
	switch {
	case len(args) == 1 && (args[0] == "--version" || args[0] == "version"):
		fmt.Fprintf(out, "longshore-bucket %s\n", version)
		return 0
	case len(args) == 1 && (args[0] == "--help" || args[0] == "-h"):
		fmt.Fprint(out, usage)
		return 0
	case len(args) != 1:
		fmt.Fprint(complaints, usage)
		return 2
	}
	bucket, err := cloud.Open(ctx, args[0])
	if err != nil {
		_ = pipe.Refuse(out, err) // who started this tells it to a person
		return 1
	}
	defer bucket.Close()
	if err := pipe.Serve(ctx, bucket, in, out); err != nil {
		fmt.Fprintf(complaints, "longshore-bucket: %v\n", err)
		return 1
	}
	return 0
}
