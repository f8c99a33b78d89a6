package commit

import (
	"reflect"
	"testing"

	"github.com/containerd/errdefs"
	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
)

func TestChanges(t *testing.T) {
	var c dockerspec.DockerOCIImageConfig
	c.Env, c.WorkingDir = []string{"PATH=/bin"}, "/srv"
	err := Apply(&c, []string{
		"ENV A=1 B=two", "ENV C=${A}x", `LABEL k="v w"`, `CMD ["serve","-v"]`, "ENTRYPOINT run it", "WORKDIR sub", "USER app:grp",
		"EXPOSE 80 90-91/udp", "VOLUME /data", "STOPSIGNAL SIGINT", "HEALTHCHECK --interval=5s CMD check", "ONBUILD RUN x",
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, x := range []struct{ got, want any }{
		{c.Env, []string{"PATH=/bin", "A=1", "B=two", "C=1x"}}, {c.Labels, map[string]string{"k": "v w"}}, {c.Cmd, []string{"serve", "-v"}},
		{c.Entrypoint, []string{"/bin/sh", "-c", "run it"}}, {c.WorkingDir, "/srv/sub"}, {c.User, "app:grp"},
		{c.ExposedPorts, map[string]struct{}{"80/tcp": {}, "90/udp": {}, "91/udp": {}}}, {c.Volumes, map[string]struct{}{"/data": {}}},
		{c.StopSignal, "SIGINT"}, {c.Healthcheck.Test, []string{"CMD-SHELL", "check"}}, {c.OnBuild, []string{"RUN x"}},
	} {
		if !reflect.DeepEqual(x.got, x.want) {
			t.Errorf("got %#v, want %#v", x.got, x.want)
		}
	}
	for _, bad := range []string{"RUN x", "COPY a b", "ADD a b", "NOPE x", "EXPOSE much", "CMD"} {
		if err := Apply(&dockerspec.DockerOCIImageConfig{}, []string{bad}); bad != "CMD" && !errdefs.IsInvalidArgument(err) {
			t.Errorf("%s: %v", bad, err)
		}
	}
}
