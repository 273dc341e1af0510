// kubeadm, of the modules that tests/cluster/go/node requires.
package main

import (
	"os"

	kubeadm "k8s.io/kubernetes/cmd/kubeadm/app"
)

func main() {
	if kubeadm.Run() != nil {
		os.Exit(1)
	}
}
