// Command odd writes the thirty odd images of package images: `odd layouts TREE DIR` as OCI layouts DIR/NAME (those that fit one),
// `odd push TREE http://host:port PREFIX` into a registry as PREFIX/NAME:v1, `odd list TREE` as lines of name, digest of what the tag
// stands for, and the words layout (it fits an OCI layout) and runs (its process prints what it sees). TREE is the program of package tree.
package main

import (
	"fmt"
	"log"
	"os"
	"path/filepath"

	"tare/internal/test/images"
)

func main() {
	log.SetFlags(0)
	if len(os.Args) < 3 {
		log.Fatal("odd layouts|push|list TREE …")
	}
	tree, err := os.ReadFile(os.Args[2])
	if err != nil {
		log.Fatal(err)
	}
	all, err := images.Odd(tree)
	if err != nil {
		log.Fatal(err)
	}
	for _, img := range all {
		switch os.Args[1] {
		case "layouts":
			if !img.Docker {
				err = img.WriteLayout(filepath.Join(os.Args[3], img.Name), "v1")
			}
		case "push":
			err = img.Push(os.Args[3], os.Args[4]+"/"+img.Name, "v1")
		case "list":
			words := ""
			if !img.Docker {
				words += " layout"
			}
			if img.Runs {
				words += " runs"
			}
			fmt.Println(img.Name, img.Root.Digest.String()+words)
		}
		if err != nil {
			log.Fatal(img.Name, ": ", err)
		}
	}
}
