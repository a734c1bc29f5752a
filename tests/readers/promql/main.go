// Program promql is Prometheus without its server: its parser of metrics, its engine, its rules, on what lies in memory.
//
//	promql queries < JSON        what queries find in scraped metrics
//	promql rules TESTS.yaml      what promtool test rules does with the tests that we have
package main

import (
	"fmt"
	"os"
)

func main() {
	var err error
	switch {
	case len(os.Args) == 2 && os.Args[1] == "queries":
		err = queries(os.Stdin, os.Stdout)
	case len(os.Args) == 3 && os.Args[1] == "rules":
		err = rules(os.Args[2], os.Stdout)
	default:
		err = fmt.Errorf("usage: promql queries < JSON | promql rules TESTS.yaml")
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
