package api

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"

	"github.com/moby/moby/client"

	"tare/internal/test/harness"
)

// docker-py reads the head of an answer through a buffer that it then throws away: no output may come with it, however
// fast the process is.
func TestOutputComesAfterTheHeadIsRead(t *testing.T) {
	t.Parallel()
	e := harness.Start(t)
	e.Tools()
	e.Docker("run", "-d", "--name", "run", "tools", "sleep", "1000")
	for i := range 5 {
		file := fmt.Sprint("/tmp/", i)
		made, err := e.Client.ExecCreate(t.Context(), "run", client.ExecCreateOptions{Cmd: []string{"sh", "-c", "echo said; write " + file + " x"}, AttachStdout: true, TTY: true})
		if err != nil {
			t.Fatal(err)
		}
		conn, err := net.Dial("unix", e.Direct)
		if err != nil {
			t.Fatal(err)
		}
		body := `{"Detach":false,"Tty":true}`
		fmt.Fprintf(conn, "POST /v1.41/exec/%s/start HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nConnection: Upgrade\r\nUpgrade: tcp\r\nContent-Length: %d\r\n\r\n%s", made.ID, len(body), body)
		e.Until("the process is through before this client reads anything", func() bool { return e.Try(nil, "exec", "run", "cat", file).Stdout == "x\n" })
		head := bufio.NewReader(conn)
		if line, err := head.ReadString('\n'); err != nil || !strings.HasPrefix(line, "HTTP/1.1 101") {
			t.Fatal(line, err)
		}
		for line := ""; line != "\r\n"; {
			if line, err = head.ReadString('\n'); err != nil {
				t.Fatal(err)
			}
		}
		rest, err := io.ReadAll(conn) // without what the buffer holds
		if err != nil || string(rest) != "said\r\n" {
			t.Errorf("after the head: %q (%v), lost in the buffer: %d bytes", rest, err, head.Buffered())
		}
		conn.Close()
	}
}
