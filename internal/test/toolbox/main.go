// Command toolbox is what runs in the containers of tests: one static program with the
// few commands they need, called by the name it is linked under, so that no test needs an image from outside.
package main

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// commands are the names that an image links to this program.
var commands = map[string]func(args []string) int{
	"echo":  echo,
	"true":  func([]string) int { return 0 },
	"false": func([]string) int { return 1 },
	"exit":  func(a []string) int { n, _ := strconv.Atoi(a[0]); return n },
	"cat":   cat,
	"sleep": sleep,
	"tick":  tick,
	"env":   env,
	"id":    func([]string) int { fmt.Printf("uid=%d gid=%d\n", os.Getuid(), os.Getgid()); return 0 },
	"pwd":   func([]string) int { d, _ := os.Getwd(); fmt.Println(d); return 0 },
	"ls":    ls,
	"write": write,
	"mkdir": func(a []string) int { return report(os.MkdirAll(a[0], 0o755)) },
	"rm":    func(a []string) int { return report(os.RemoveAll(a[0])) },
	"err":   func(a []string) int { fmt.Fprintln(os.Stderr, strings.Join(a, " ")); return 0 },
	"size":  size,
	"trap":  trap,
	"serve": serve,
	"fetch": fetch,
	"resolve": func(a []string) int {
		found, err := net.LookupHost(a[0])
		fmt.Println(strings.Join(found, " "))
		return report(err)
	},
	"sh": sh,
}

func main() {
	name, args := filepath.Base(os.Args[0]), os.Args[1:]
	if name == "toolbox" {
		if len(args) == 0 {
			for name := range commands {
				fmt.Println(name)
			}
			return
		}
		name, args = args[0], args[1:]
	}
	c, ok := commands[name]
	if !ok {
		fmt.Fprintln(os.Stderr, name+": not found")
		os.Exit(127)
	}
	os.Exit(c(args))
}

func report(err error) int {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

func echo(args []string) int {
	if len(args) > 0 && args[0] == "-n" {
		fmt.Print(strings.Join(args[1:], " "))
		return 0
	}
	fmt.Println(strings.Join(args, " "))
	return 0
}

func cat(args []string) int {
	if len(args) == 0 {
		_, err := io.Copy(os.Stdout, os.Stdin)
		return report(err)
	}
	for _, p := range args {
		data, err := os.ReadFile(p)
		if err != nil {
			return report(err)
		}
		os.Stdout.Write(data)
	}
	return 0
}

func sleep(args []string) int {
	s, err := strconv.ParseFloat(args[0], 64)
	if err != nil {
		return report(err)
	}
	time.Sleep(time.Duration(s * float64(time.Second)))
	return 0
}

// tick COUNT INTERVAL prints numbered lines; COUNT 0 is for ever.
func tick(args []string) int {
	n, _ := strconv.Atoi(args[0])
	d, err := time.ParseDuration(args[1])
	if err != nil {
		return report(err)
	}
	for i := 1; n == 0 || i <= n; i++ {
		fmt.Println("tick", i)
		time.Sleep(d)
	}
	return 0
}

func env(args []string) int {
	e := os.Environ()
	slices.Sort(e)
	for _, kv := range e {
		fmt.Println(kv)
	}
	return 0
}

func ls(args []string) int {
	dir := "."
	if len(args) > 0 {
		dir = args[0]
	}
	list, err := os.ReadDir(dir)
	for _, e := range list {
		fmt.Println(e.Name())
	}
	return report(err)
}

// write FILE WORD…
func write(args []string) int {
	return report(os.WriteFile(args[0], []byte(strings.Join(args[1:], " ")+"\n"), 0o644))
}

// size prints the terminal's rows and columns, and again at every change.
func size(args []string) int {
	changed := make(chan os.Signal, 1)
	signal.Notify(changed, syscall.SIGWINCH)
	for {
		rows, cols, err := terminalSize()
		if err != nil {
			return report(err)
		}
		fmt.Println("size", rows, cols)
		if len(args) == 0 {
			return 0
		}
		<-changed
	}
}

// trap prints the name of each signal until TERM, then leaves with 7.
func trap([]string) int {
	c := make(chan os.Signal, 1)
	signal.Notify(c, syscall.SIGTERM, syscall.SIGUSR1, syscall.SIGHUP)
	fmt.Println("ready")
	for s := range c {
		fmt.Println("got", s)
		if s == syscall.SIGTERM {
			return 7
		}
	}
	return 0
}

// serve ADDRESS TEXT answers every HTTP request with TEXT.
func serve(args []string) int {
	l, err := net.Listen("tcp", args[0])
	if err != nil {
		return report(err)
	}
	fmt.Println("listening")
	return report(http.Serve(l, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintln(w, strings.Join(args[1:], " "))
	})))
}

func fetch(args []string) int {
	c := http.Client{Timeout: 5 * time.Second}
	res, err := c.Get(args[0])
	if err != nil {
		return report(err)
	}
	defer res.Body.Close()
	_, err = io.Copy(os.Stdout, res.Body)
	return report(err)
}

// sh -c 'A && B; C > FILE' knows words, quotes, $NAME, &&, ; and >; without -c it reads lines.
func sh(args []string) int {
	if len(args) >= 2 && args[0] == "-c" {
		return script(args[1])
	}
	code := 0
	in := bufio.NewScanner(os.Stdin)
	fmt.Print("$ ")
	for in.Scan() {
		if f := strings.Fields(in.Text()); len(f) > 0 && f[0] == "exit" {
			if len(f) > 1 {
				code, _ = strconv.Atoi(f[1])
			}
			return code
		}
		code = script(in.Text())
		fmt.Print("$ ")
	}
	return code
}

func script(text string) int {
	code := 0
	for _, line := range strings.FieldsFunc(text, func(r rune) bool { return r == ';' || r == '\n' }) {
		for _, command := range strings.Split(line, "&&") {
			if code = runWords(words(command)); code != 0 {
				break
			}
		}
	}
	return code
}

func words(s string) []string {
	var list []string
	var cur strings.Builder
	quote, open := rune(0), false
	for _, r := range s {
		switch {
		case quote != 0 && r == quote:
			quote = 0
		case quote == 0 && (r == '\'' || r == '"'):
			quote, open = r, true
		case quote == 0 && (r == ' ' || r == '\t'):
			if cur.Len() > 0 || open {
				list = append(list, cur.String())
			}
			cur.Reset()
			open = false
		default:
			cur.WriteRune(r)
		}
	}
	if cur.Len() > 0 || open {
		list = append(list, cur.String())
	}
	for i := range list {
		list[i] = os.ExpandEnv(list[i])
	}
	return list
}

func runWords(w []string) int {
	out := os.Stdout
	if i := slices.Index(w, ">"); i >= 0 && i+1 < len(w) {
		f, err := os.Create(w[i+1])
		if err != nil {
			return report(err)
		}
		defer f.Close()
		out, w = f, w[:i]
	}
	if len(w) == 0 {
		return 0
	}
	if w[0] == "exit" {
		code := 0
		if len(w) > 1 {
			code, _ = strconv.Atoi(w[1])
		}
		os.Exit(code)
	}
	cmd := exec.Command(w[0], w[1:]...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, out, os.Stderr
	if err := cmd.Run(); err != nil {
		if cmd.ProcessState == nil {
			fmt.Fprintln(os.Stderr, err)
			return 127
		}
		return cmd.ProcessState.ExitCode()
	}
	return 0
}
