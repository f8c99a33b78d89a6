// Command web is the demo's application: a web server without dependencies.
package main

import (
	"flag"
	"fmt"
	"log"
	"net/http"
	"os"
)

func main() {
	check := flag.Bool("check", false, "check that the page is there, and exit")
	flag.Parse()
	page, err := os.ReadFile("/page.txt")
	if err != nil {
		log.Fatal(err)
	}
	if *check {
		fmt.Printf("page.txt: %d bytes\n", len(page))
		return
	}
	http.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		fmt.Printf("%s %s from %s\n", r.Method, r.URL.Path, r.RemoteAddr)
		host, _ := os.Hostname()
		fmt.Fprintf(w, "%sserved by %s\n", page, host)
	})
	fmt.Println("listening on :8080")
	log.Fatal(http.ListenAndServe(":8080", nil))
}
