// Go's x/crypto/ssh through the proxy with each key exchange, cipher and MAC that both have, keys renewed at 1 MiB:
// PORT HOME.
package main

import (
	"bytes"
	"fmt"
	"log"
	"os"
	"path/filepath"
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

func main() {
	log.SetFlags(0)
	port, home := os.Args[1], os.Args[2]
	signer, err := certified(home)
	if err != nil {
		log.Fatal(err)
	}
	authority, err := hostAuthority(home)
	if err != nil {
		log.Fatal(err)
	}
	known := ssh.CertChecker{IsHostAuthority: func(key ssh.PublicKey, _ string) bool {
		return bytes.Equal(key.Marshal(), authority.Marshal())
	}}
	data := bytes.Repeat([]byte("x/crypto/ssh "), 200_000)
	count := 0
	for _, method := range methods {
		for _, cipher := range ciphers {
			for n, mac := range macs {
				if n > 0 && !strings.HasSuffix(cipher, "-ctr") {
					continue
				}
				config := &ssh.ClientConfig{
					Config: ssh.Config{
						KeyExchanges: []string{method}, Ciphers: []string{cipher}, MACs: []string{mac}, RekeyThreshold: 1 << 20,
					},
					User:            "root+web-1",
					Auth:            []ssh.AuthMethod{ssh.PublicKeys(signer)},
					HostKeyCallback: known.CheckHostKey,
					HostKeyAlgorithms: []string{
						ssh.CertAlgoED25519v01,
					},
				}
				if err := through("127.0.0.1:"+port, config, data); err != nil {
					log.Fatalf("%s %s %s: %v", method, cipher, mac, err)
				}
				count++
			}
		}
	}
	fmt.Println("combinations", count)
}

// certified reads the key that `custody login` made, with its certificate.
func certified(home string) (ssh.Signer, error) {
	key, err := os.ReadFile(filepath.Join(home, "id"))
	if err != nil {
		return nil, err
	}
	signer, err := ssh.ParsePrivateKey(key)
	if err != nil {
		return nil, err
	}
	public, err := os.ReadFile(filepath.Join(home, "id-cert.pub"))
	if err != nil {
		return nil, err
	}
	certificate, _, _, _, err := ssh.ParseAuthorizedKey(public)
	if err != nil {
		return nil, err
	}
	return ssh.NewCertSigner(certificate.(*ssh.Certificate), signer)
}

// hostAuthority reads the CA of the line `@cert-authority` that `custody login` wrote.
func hostAuthority(home string) (ssh.PublicKey, error) {
	known, err := os.ReadFile(filepath.Join(home, "known_hosts"))
	if err != nil {
		return nil, err
	}
	_, _, key, _, _, err := ssh.ParseKnownHosts(known)
	return key, err
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
