package main

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"github.com/pkg/sftp"
	"golang.org/x/crypto/ssh"
)

// moveFiles puts FOLDER/file to FOLDER/put and gets that to FOLDER/got, with many requests under way at once.
func moveFiles(address, home, folder string) error {
	config, err := configuration(home)
	if err != nil {
		return err
	}
	connection, err := ssh.Dial("tcp", address, config)
	if err != nil {
		return err
	}
	defer connection.Close()
	client, err := sftp.NewClient(connection, sftp.UseConcurrentWrites(true), sftp.UseConcurrentReads(true))
	if err != nil {
		return err
	}
	defer client.Close()
	file, put, got := filepath.Join(folder, "file"), filepath.Join(folder, "put"), filepath.Join(folder, "got")
	if err := upload(client, file, put); err != nil {
		return err
	}
	if err := download(client, put, got); err != nil {
		return err
	}
	sent, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	back, err := os.ReadFile(got)
	if err != nil {
		return err
	}
	if bytes.Equal(sent, back) {
		fmt.Println("equal")
	}
	if _, err := client.Open(filepath.Join(folder, "missing")); errors.Is(err, fs.ErrNotExist) {
		fmt.Println("missing")
	}
	listed, err := client.ReadDir(folder)
	if err != nil {
		return err
	}
	if slices.ContainsFunc(listed, func(entry os.FileInfo) bool { return entry.Name() == "put" }) {
		fmt.Println("listed")
	}
	return nil
}

func upload(client *sftp.Client, from, to string) error {
	source, err := os.Open(from)
	if err != nil {
		return err
	}
	defer source.Close()
	target, err := client.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_TRUNC)
	if err != nil {
		return err
	}
	if _, err := target.ReadFrom(source); err != nil {
		return err
	}
	return target.Close()
}

func download(client *sftp.Client, from, to string) error {
	source, err := client.Open(from)
	if err != nil {
		return err
	}
	defer source.Close()
	target, err := os.Create(to)
	if err != nil {
		return err
	}
	if _, err := source.WriteTo(target); err != nil {
		return err
	}
	return target.Close()
}
