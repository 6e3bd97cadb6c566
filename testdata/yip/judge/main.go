// Runs the stages that are named over a directory of documents, as upstream does.
package main

import (
	"fmt"
	"os"

	"github.com/mudler/yip/pkg/console"
	"github.com/mudler/yip/pkg/executor"
	"github.com/sirupsen/logrus"
	"github.com/twpayne/go-vfs/v5"
)

func main() {
	log := logrus.New()
	log.SetOutput(os.Stderr)
	source := os.Args[1]
	for _, stage := range os.Args[2:] {
		runner := executor.NewExecutor(executor.WithLogger(log))
		if err := runner.Run(stage, vfs.OSFS, console.NewStandardConsole(console.WithLogger(log)), source); err != nil {
			fmt.Fprintf(os.Stderr, "stage %s: %v\n", stage, err)
			os.Exit(1)
		}
	}
}
