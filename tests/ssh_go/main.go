// Go's x/crypto/ssh through the proxy: PORT HOME tries each algorithm, PORT HOME FOLDER moves files with pkg/sftp, which
// rclone and restic have.
package main

import (
	"log"
	"os"
)

func main() {
	log.SetFlags(0)
	address, home := "127.0.0.1:"+os.Args[1], os.Args[2]
	var err error
	if len(os.Args) > 3 {
		err = moveFiles(address, home, os.Args[3])
	} else {
		err = eachAlgorithm(address, home)
	}
	if err != nil {
		log.Fatal(err)
	}
}
