package main

import (
	"bytes"
	"fmt"
	"strings"

	"golang.org/x/crypto/ssh"
)

var (
	methods = []string{
		"mlkem768x25519-sha256", "curve25519-sha256", "curve25519-sha256@libssh.org",
		"ecdh-sha2-nistp256", "ecdh-sha2-nistp384", "ecdh-sha2-nistp521",
	}
	ciphers = []string{
		"aes256-gcm@openssh.com", "aes128-gcm@openssh.com", "chacha20-poly1305@openssh.com", "aes256-ctr", "aes128-ctr",
	}
	macs = []string{"hmac-sha2-256-etm@openssh.com", "hmac-sha2-512-etm@openssh.com"}
)

// eachAlgorithm sends data there and back with each key exchange, cipher and MAC that both have, keys renewed at 1 MiB.
func eachAlgorithm(address, home string) error {
	base, err := configuration(home)
	if err != nil {
		return err
	}
	data := bytes.Repeat([]byte("x/crypto/ssh "), 200_000)
	count := 0
	for _, method := range methods {
		for _, cipher := range ciphers {
			for n, mac := range macs {
				if n > 0 && !strings.HasSuffix(cipher, "-ctr") {
					continue
				}
				config := *base
				config.Config = ssh.Config{
					KeyExchanges: []string{method}, Ciphers: []string{cipher}, MACs: []string{mac}, RekeyThreshold: 1 << 20,
				}
				if err := through(address, &config, data); err != nil {
					return fmt.Errorf("%s %s %s: %w", method, cipher, mac, err)
				}
				count++
			}
		}
	}
	fmt.Println("combinations", count)
	return nil
}

// through sends data through `cat` and wants it back.
func through(address string, config *ssh.ClientConfig, data []byte) error {
	client, err := ssh.Dial("tcp", address, config)
	if err != nil {
		return err
	}
	defer client.Close()
	session, err := client.NewSession()
	if err != nil {
		return err
	}
	session.Stdin = bytes.NewReader(data)
	back, err := session.Output("cat")
	if err != nil {
		return err
	}
	if !bytes.Equal(back, data) {
		return fmt.Errorf("%d bytes came back of %d", len(back), len(data))
	}
	return nil
}
