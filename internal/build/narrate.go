package build

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"

	"github.com/distribution/reference"

	"tare/internal/base/ids"
	"tare/internal/build/graph"
	"tare/internal/build/solve"
	"tare/internal/image"
)

// narrator tells the steps in the file's order, whatever the order in which they are done.
//
// The ids behind " ---> " are the image's for FROM and at the end; in between, where the
// classic builder had images, they are digits of the step's key.
type narrator struct {
	g    *graph.Graph
	run  *solve.Run
	out  *serial
	said map[int]bool // steps that were told

	explain bool // print why
	why     *explainer
}

// tell returns when all is told, or with the first step that failed.
func (n *narrator) tell(ctx context.Context) {
	n.said = map[int]bool{}
	number, total := 0, n.total()
	for si, stage := range n.g.Stages {
		id := ""
		for i, line := range stage.Lines {
			number++
			n.out.Stream(fmt.Sprintf("Step %d/%d : %s\n", number, total, line.Text))
			last := si == n.g.Target && i == len(stage.Lines)-1
			if line.Step == graph.None {
				if line.Shows { // FROM scratch has no id
					id = after(id, line.Text)
				}
			} else {
				t := n.run.Tasks[line.Step]
				if line.Shows {
					n.said[line.Step] = true
					t.Log.Follow(ctx, func(text []byte) { n.out.Stream(string(text)) })
				}
				select {
				case <-t.Done():
				case <-ctx.Done():
					return
				}
				r, err := t.Result()
				if err != nil {
					return
				}
				why := ""
				if line.Shows {
					why = n.why.tell(ctx, stage, line.Step)
				}
				if r.Cached && line.Shows {
					n.out.Stream(" ---> Using cache\n")
				}
				if n.explain && why != "" {
					n.out.Stream(" ---> " + why + "\n")
				}
				id = r.Key
				if base, ok := n.g.Steps[line.Step].Op.(graph.Base); ok {
					id = base.Image.String()
				}
			}
			if !last && id != "" {
				n.out.Stream(" ---> " + ids.Short(id) + "\n")
			}
		}
	}
}

func (n *narrator) total() (total int) {
	for _, s := range n.g.Stages {
		total += len(s.Lines)
	}
	return total
}

// after is a stand-in id for an instruction that changes no files.
func after(id, text string) string {
	sum := sha256.Sum256([]byte(id + "\x00" + text))
	return hex.EncodeToString(sum[:])
}

// failed tells the step that failed, if another was being told when it did.
func (n *narrator) failed(step int) {
	if step == graph.None || n.said[step] {
		return
	}
	number, total := 0, n.total()
	for _, stage := range n.g.Stages {
		for _, line := range stage.Lines {
			number++
			if line.Step == step && line.Shows {
				n.out.Stream(fmt.Sprintf("Step %d/%d : %s\n", number, total, line.Text))
				n.run.Tasks[step].Log.Follow(context.Background(), func(text []byte) { n.out.Stream(string(text)) })
				return
			}
		}
	}
}

// done ends the story.
func (n *narrator) done(img *image.Image, names []reference.NamedTagged) {
	// One message a line: docker-py takes the image from the message that begins with "Successfully built".
	id := ids.Short(img.ID.String())
	n.out.Stream(" ---> " + id + "\n")
	n.out.Stream("Successfully built " + id + "\n")
	for _, name := range names {
		n.out.Stream("Successfully tagged " + reference.FamiliarString(name) + "\n")
	}
}
