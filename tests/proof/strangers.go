// strangers reads a running log as others would, with libraries that know nothing of Custody, and prints what it
// checked as one line of JSON. Anything that isn't right ends it with a message and status 1.
//
//	strangers URL VERIFIER-KEY [BEARER-TOKEN]
package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strings"

	"filippo.io/torchwood"
	"github.com/transparency-dev/merkle/proof"
	"github.com/transparency-dev/merkle/rfc6962"
	"github.com/transparency-dev/tessera/client"
	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

// What was checked, how often.
type checked struct {
	Size             int64 `json:"size"`
	SumdbRecords     int   `json:"sumdb_records"`
	SumdbTrees       int   `json:"sumdb_trees"`
	TesseraRecords   int   `json:"tessera_records"`
	TesseraTrees     int   `json:"tessera_trees"`
	TesseraEntries   int   `json:"tessera_entries"`
	TorchwoodEntries int   `json:"torchwood_entries"`
}

func main() {
	if len(os.Args) < 3 {
		fmt.Fprintln(os.Stderr, "usage: strangers URL VERIFIER-KEY [BEARER-TOKEN]")
		os.Exit(2)
	}
	if len(os.Args) > 3 {
		http.DefaultTransport = bearer{os.Args[3], http.DefaultTransport}
	}
	found, err := check(context.Background(), strings.TrimSuffix(os.Args[1], "/")+"/", os.Args[2])
	if err != nil {
		fmt.Fprintln(os.Stderr, "strangers:", err)
		os.Exit(1)
	}
	json.NewEncoder(os.Stdout).Encode(found)
}

func check(ctx context.Context, base, vkey string) (checked, error) {
	var found checked
	verifier, err := note.NewVerifier(vkey)
	if err != nil {
		return found, err
	}
	root, err := url.Parse(base)
	if err != nil {
		return found, err
	}
	fetcher, err := client.NewHTTPFetcher(root, nil)
	if err != nil {
		return found, err
	}
	// Two parsers of the same checkpoint, both behind Go's notes.
	theirs, raw, _, err := client.FetchCheckpoint(ctx, fetcher.ReadCheckpoint, verifier, verifier.Name())
	if err != nil {
		return found, fmt.Errorf("checkpoint: %w", err)
	}
	opened, err := note.Open(raw, note.VerifierList(verifier))
	if err != nil {
		return found, fmt.Errorf("checkpoint: %w", err)
	}
	checkpoint, err := torchwood.ParseCheckpoint(opened.Text)
	if err != nil {
		return found, fmt.Errorf("checkpoint: %w", err)
	}
	if checkpoint.N != int64(theirs.Size) || !bytes.Equal(checkpoint.Hash[:], theirs.Hash) {
		return found, errors.New("two parsers read two checkpoints")
	}
	if checkpoint.N == 0 {
		return found, errors.New("an empty log proves nothing")
	}
	found.Size = checkpoint.N
	tiles := &sumdbTiles{base: base}
	// It authenticates each tile against the checkpoint's root before it takes a hash out of it.
	hashes := tlog.TileHashReader(checkpoint.Tree, tiles)
	entries, err := torchwoodEntries(ctx, base, checkpoint.Tree)
	if err != nil {
		return found, fmt.Errorf("torchwood: %w", err)
	}
	found.TorchwoodEntries = len(entries)
	if err := sumdb(&found, checkpoint.Tree, hashes, entries); err != nil {
		return found, fmt.Errorf("sumdb/tlog: %w", err)
	}
	if err := tessera(ctx, &found, checkpoint.Tree, fetcher, hashes, entries); err != nil {
		return found, fmt.Errorf("tessera: %w", err)
	}
	return found, nil
}

// Pairs of a size up to n and a smaller number: all around borders of tiles and the end, and some between.
func pairs(n int64) [][2]int64 {
	borders := []int64{1, 2, 3, n - 1, n}
	for tile := int64(256); tile <= n+1 && tile <= 65536; tile *= 2 {
		borders = append(borders, tile-1, tile, tile+1)
	}
	random := rand.New(rand.NewSource(n))
	for range 10 {
		borders = append(borders, 1+random.Int63n(n))
	}
	borders = slices.DeleteFunc(borders, func(size int64) bool { return size < 1 || size > n })
	slices.Sort(borders)
	borders = slices.Compact(borders)
	var found [][2]int64
	for _, size := range borders {
		for _, smaller := range borders {
			if smaller <= size {
				found = append(found, [2]int64{size, smaller})
			}
		}
	}
	return found
}

func sumdb(found *checked, tree tlog.Tree, hashes tlog.HashReader, entries [][]byte) error {
	whole, err := tlog.TreeHash(tree.N, hashes)
	if err != nil {
		return err
	}
	if whole != tree.Hash {
		return errors.New("the tiles don't lead to the signed root")
	}
	for _, pair := range pairs(tree.N) {
		size, smaller := pair[0], pair[1]
		root, err := tlog.TreeHash(size, hashes)
		if err != nil {
			return err
		}
		record, err := tlog.ProveRecord(size, smaller-1, hashes)
		if err != nil {
			return err
		}
		leaf := tlog.RecordHash(entries[smaller-1])
		if err := tlog.CheckRecord(record, size, root, smaller-1, leaf); err != nil {
			return fmt.Errorf("record %d of %d: %w", smaller-1, size, err)
		}
		found.SumdbRecords++
		old, err := tlog.TreeHash(smaller, hashes)
		if err != nil {
			return err
		}
		both, err := tlog.ProveTree(size, smaller, hashes)
		if err != nil {
			return err
		}
		if err := tlog.CheckTree(both, size, root, smaller, old); err != nil {
			return fmt.Errorf("tree %d in %d: %w", smaller, size, err)
		}
		found.SumdbTrees++
	}
	return nil
}

func tessera(ctx context.Context, found *checked, tree tlog.Tree, fetcher *client.HTTPFetcher, hashes tlog.HashReader, entries [][]byte) error {
	builder, err := client.NewProofBuilder(ctx, uint64(tree.N), fetcher.ReadTile)
	if err != nil {
		return err
	}
	for _, pair := range pairs(tree.N) {
		size, smaller := uint64(pair[0]), uint64(pair[1])
		root, err := tlog.TreeHash(pair[0], hashes)
		if err != nil {
			return err
		}
		old, err := tlog.TreeHash(pair[1], hashes)
		if err != nil {
			return err
		}
		both, err := builder.ConsistencyProof(ctx, smaller, size)
		if err != nil {
			return err
		}
		if err := proof.VerifyConsistency(rfc6962.DefaultHasher, smaller, size, both, old[:], root[:]); err != nil {
			return fmt.Errorf("tree %d in %d: %w", smaller, size, err)
		}
		found.TesseraTrees++
		if pair[0] != tree.N {
			continue
		}
		record, err := builder.InclusionProof(ctx, smaller-1)
		if err != nil {
			return err
		}
		leaf := rfc6962.DefaultHasher.HashLeaf(entries[smaller-1])
		if err := proof.VerifyInclusion(rfc6962.DefaultHasher, smaller-1, size, leaf, record, root[:]); err != nil {
			return fmt.Errorf("record %d of %d: %w", smaller-1, size, err)
		}
		found.TesseraRecords++
	}
	for number := range uint64((tree.N + 255) / 256) {
		bundle, err := client.GetEntryBundle(ctx, fetcher.ReadEntryBundle, number, uint64(tree.N))
		if err != nil {
			return err
		}
		for _, entry := range bundle.Entries {
			if found.TesseraEntries >= len(entries) || !bytes.Equal(entry, entries[found.TesseraEntries]) {
				return fmt.Errorf("entry %d is another one", found.TesseraEntries)
			}
			found.TesseraEntries++
		}
	}
	if int64(found.TesseraEntries) != tree.N {
		return fmt.Errorf("%d entries of %d", found.TesseraEntries, tree.N)
	}
	return nil
}

// All entries, each verified against the tree by torchwood's client, which leaves out the last partial bundle when it
// is asked for an open end: so the rest is asked for one by one.
func torchwoodEntries(ctx context.Context, base string, tree tlog.Tree) ([][]byte, error) {
	fetcher, err := torchwood.NewTileFetcher(base, torchwood.WithHTTPClient(http.DefaultClient))
	if err != nil {
		return nil, err
	}
	reader, err := torchwood.NewClient(fetcher)
	if err != nil {
		return nil, err
	}
	var entries [][]byte
	for index, entry := range reader.Entries(ctx, tree, 0) {
		if index != int64(len(entries)) {
			return nil, fmt.Errorf("entry %d comes as number %d", index, len(entries))
		}
		entries = append(entries, bytes.Clone(entry))
	}
	if err := reader.Err(); err != nil {
		return nil, err
	}
	for index := int64(len(entries)); index < tree.N; index++ {
		entry, _, err := reader.Entry(ctx, tree, index)
		if err != nil {
			return nil, err
		}
		entries = append(entries, bytes.Clone(entry))
	}
	return entries, nil
}

// sumdbTiles gives Go's checksum database reader tiles under their C2SP names.
type sumdbTiles struct {
	base  string
	saved map[tlog.Tile][]byte
}

func (*sumdbTiles) Height() int { return torchwood.TileHeight }

func (t *sumdbTiles) ReadTiles(tiles []tlog.Tile) ([][]byte, error) {
	var data [][]byte
	for _, tile := range tiles {
		if saved, ok := t.saved[tile]; ok {
			data = append(data, saved)
			continue
		}
		body, err := get(t.base + torchwood.TilePath(tile))
		if err != nil {
			return nil, err
		}
		if len(body) != tile.W*sha256.Size {
			return nil, fmt.Errorf("%s has %d bytes", torchwood.TilePath(tile), len(body))
		}
		data = append(data, body)
	}
	return data, nil
}

func (t *sumdbTiles) SaveTiles(tiles []tlog.Tile, data [][]byte) {
	if t.saved == nil {
		t.saved = map[tlog.Tile][]byte{}
	}
	for i, tile := range tiles {
		t.saved[tile] = data[i]
	}
}

func get(address string) ([]byte, error) {
	answer, err := http.Get(address)
	if err != nil {
		return nil, err
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s: %s", address, answer.Status)
	}
	return io.ReadAll(answer.Body)
}

// bearer shows a token with each request.
type bearer struct {
	token string
	next  http.RoundTripper
}

func (b bearer) RoundTrip(request *http.Request) (*http.Response, error) {
	request = request.Clone(request.Context())
	request.Header.Set("Authorization", "Bearer "+b.token)
	return b.next.RoundTrip(request)
}
