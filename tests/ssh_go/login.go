package main

import (
	"bytes"
	"os"
	"path/filepath"

	"golang.org/x/crypto/ssh"
)

// configuration says who logs in where, and whom to believe that it is there.
func configuration(home string) (*ssh.ClientConfig, error) {
	signer, err := certified(home)
	if err != nil {
		return nil, err
	}
	authority, err := hostAuthority(home)
	if err != nil {
		return nil, err
	}
	known := ssh.CertChecker{IsHostAuthority: func(key ssh.PublicKey, _ string) bool {
		return bytes.Equal(key.Marshal(), authority.Marshal())
	}}
	return &ssh.ClientConfig{
		User:              "root+web-1",
		Auth:              []ssh.AuthMethod{ssh.PublicKeys(signer)},
		HostKeyCallback:   known.CheckHostKey,
		HostKeyAlgorithms: []string{ssh.CertAlgoED25519v01},
	}, nil
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
