// appends measures Tessera's log on POSIX files as Custody's bench measures its own: producers that each wait until
// their entry is durable before they hand in the next one. Prints the appends in a second.
//
//	appends DIRECTORY PRODUCERS SECONDS
package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/transparency-dev/tessera"
	"github.com/transparency-dev/tessera/storage/posix"
	"golang.org/x/mod/sumdb/note"
)

// The mean of what Custody's bench appends.
const entryBytes = 600

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "appends:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	if len(args) != 3 {
		return errors.New("usage: appends DIRECTORY PRODUCERS SECONDS")
	}
	producers, err := strconv.Atoi(args[1])
	if err != nil {
		return err
	}
	seconds, err := strconv.Atoi(args[2])
	if err != nil {
		return err
	}
	ctx := context.Background()
	secret, _, err := note.GenerateKey(rand.Reader, "custody.test/tessera")
	if err != nil {
		return err
	}
	signer, err := note.NewSigner(secret)
	if err != nil {
		return err
	}
	driver, err := posix.New(ctx, posix.Config{Path: args[0]})
	if err != nil {
		return err
	}
	// A batch is written as soon as all producers wait in it, or after Tessera's own default.
	appender, shutdown, _, err := tessera.NewAppender(ctx, driver, tessera.NewAppendOptions().
		WithCheckpointSigner(signer).
		WithCheckpointInterval(time.Second).
		WithBatching(uint(producers), tessera.DefaultBatchMaxAge))
	if err != nil {
		return err
	}
	done, took, err := appendAll(ctx, appender, producers, time.Duration(seconds)*time.Second)
	if err != nil {
		return err
	}
	fmt.Printf("%.1f\n", float64(done)/took.Seconds())
	return shutdown(ctx)
}

// appendAll lets the producers append for the given time, and until the last of them has been answered.
func appendAll(ctx context.Context, to *tessera.Appender, producers int, length time.Duration) (int64, time.Duration, error) {
	var done atomic.Int64
	var all sync.WaitGroup
	failed := make(chan error, producers)
	start := time.Now()
	for n := range producers {
		all.Add(1)
		go func() {
			defer all.Done()
			for seq := 0; time.Since(start) < length; seq++ {
				entry := make([]byte, entryBytes)
				copy(entry, fmt.Sprintf("%d/%d", n, seq))
				if _, err := to.Add(ctx, tessera.NewEntry(entry))(); err != nil {
					failed <- err
					return
				}
				done.Add(1)
			}
		}()
	}
	all.Wait()
	select {
	case err := <-failed:
		return 0, 0, err
	default:
		return done.Load(), time.Since(start), nil
	}
}
