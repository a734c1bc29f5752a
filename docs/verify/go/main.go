// verify checks what `custody prove` wrote with the notes and proofs of Go's checksum database, golang.org/x/mod/sumdb.
//
//	go run . FOLDER VERIFIER-KEY
//
// The key is an argument and not read from the folder: whoever made up the folder would have put his own into it.
package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

func main() {
	if len(os.Args) != 3 {
		fmt.Fprintln(os.Stderr, "usage: verify FOLDER VERIFIER-KEY")
		os.Exit(2)
	}
	if err := verify(os.Args[1], os.Args[2]); err != nil {
		fmt.Fprintln(os.Stderr, "NOT proved:", err)
		os.Exit(1)
	}
}

func verify(folder, vkey string) error {
	verifier, err := note.NewVerifier(strings.TrimSpace(vkey))
	if err != nil {
		return err
	}
	signed, err := os.ReadFile(filepath.Join(folder, "checkpoint"))
	if err != nil {
		return err
	}
	opened, err := note.Open(signed, note.VerifierList(verifier))
	if err != nil {
		return fmt.Errorf("checkpoint: %w", err)
	}
	tree, err := parseCheckpoint(opened.Text, verifier.Name())
	if err != nil {
		return fmt.Errorf("checkpoint: %w", err)
	}
	events, err := filepath.Glob(filepath.Join(folder, "[0-9]*.json"))
	if err != nil {
		return err
	}
	proofs, err := filepath.Glob(filepath.Join(folder, "[0-9]*.tlog-proof"))
	if err != nil {
		return err
	}
	if len(events) == 0 || len(proofs) != len(events) {
		return fmt.Errorf("%d events, %d proofs", len(events), len(proofs))
	}
	sums, sessions := map[string]bool{}, map[string]bool{}
	for _, path := range events {
		event, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		if err := checkEvent(path, event, string(signed), tree); err != nil {
			return fmt.Errorf("%s: %w", filepath.Base(path), err)
		}
		var said struct {
			Type    string `json:"type"`
			Session string `json:"session"`
			Data    struct {
				SHA256 string `json:"sha256"`
			} `json:"data"`
		}
		if err := json.Unmarshal(event, &said); err != nil {
			return fmt.Errorf("%s: %w", filepath.Base(path), err)
		}
		sessions[said.Session] = true
		if said.Type == "recording.sealed" {
			sums[said.Data.SHA256] = true
		}
	}
	if len(sessions) != 1 || sessions[""] {
		return errors.New("its events aren't all of one session")
	}
	for session := range sessions {
		if err := checkRecording(filepath.Join(folder, "recording"), session, sums); err != nil {
			return fmt.Errorf("recording: %w", err)
		}
		fmt.Printf("proved: %d events of the session %s stand in %s as it was signed with %d events\n",
			len(events), session, verifier.Name(), tree.N)
	}
	return nil
}

// checkRecording hashes it piece by piece, however long it is, and reads the session in its header (docs/design/recording.md).
func checkRecording(path, session string, sums map[string]bool) error {
	recording, err := os.Open(path)
	if errors.Is(err, os.ErrNotExist) && len(sums) == 0 {
		return nil
	}
	if err != nil {
		return err
	}
	defer recording.Close()
	whole := sha256.New()
	if _, err := io.Copy(whole, recording); err != nil {
		return err
	}
	if !sums[hex.EncodeToString(whole.Sum(nil))] {
		return errors.New("no recording.sealed of these events has its SHA-256")
	}
	header := make([]byte, 28)
	if _, err := recording.ReadAt(header, 0); err != nil {
		return err
	}
	if !bytes.HasPrefix(header, []byte("CUSTREC\n")) || hex.EncodeToString(header[12:]) != strings.ReplaceAll(session, "-", "") {
		return errors.New("it is of another session than the events")
	}
	return nil
}

func checkEvent(path string, event []byte, signed string, tree tlog.Tree) error {
	index, err := strconv.ParseInt(strings.TrimSuffix(filepath.Base(path), ".json"), 10, 64)
	if err != nil {
		return err
	}
	text, err := os.ReadFile(strings.TrimSuffix(path, ".json") + ".tlog-proof")
	if err != nil {
		return err
	}
	head, checkpoint, _ := strings.Cut(string(text), "\n\n")
	if checkpoint != signed {
		return errors.New("its proof is for another checkpoint")
	}
	lines := strings.Split(head, "\n")
	if len(lines) < 2 || lines[0] != "c2sp.org/tlog-proof@v1" || lines[1] != fmt.Sprintf("index %d", index) {
		return errors.New("its proof isn't a tlog-proof of its index")
	}
	var proof tlog.RecordProof
	for _, line := range lines[2:] {
		hash, err := tlog.ParseHash(line)
		if err != nil {
			return err
		}
		proof = append(proof, hash)
	}
	return tlog.CheckRecord(proof, tree.N, tree.Hash, index, tlog.RecordHash(event))
}

// parseCheckpoint reads the origin, the size and the root (C2SP tlog-checkpoint).
func parseCheckpoint(text, origin string) (tlog.Tree, error) {
	lines := strings.Split(text, "\n")
	if len(lines) < 4 || lines[0] != origin {
		return tlog.Tree{}, errors.New("it is of another log")
	}
	size, err := strconv.ParseInt(lines[1], 10, 64)
	if err != nil || size < 1 {
		return tlog.Tree{}, errors.New("it has no size")
	}
	root, err := base64.StdEncoding.DecodeString(lines[2])
	if err != nil || len(root) != sha256.Size {
		return tlog.Tree{}, errors.New("it has no root")
	}
	return tlog.Tree{N: size, Hash: tlog.Hash(root)}, nil
}
