package build

import "os"

// cases are Dockerfiles with the corners of every instruction. A tab at the beginning of a line is not part of it.
var cases = []example{
	{name: "run-forms", dockerfiles: []string{`FROM base:1
	RUN echo shell > /shell && id > /id && pwd > /pwd && umask > /umask
	RUN ["/bin/sh", "-c", "echo exec $0 > /exec", "zero"]
	RUN ["touch", "/a b"]
	RUN echo one; \
	    # a comment in between
	    echo two > /two
	RUN [ -e /two ] && echo three > /three
	RUN env | grep -v -e HOSTNAME -e PWD -e SHLVL -e SOURCE_DATE_EPOCH | sort > /env
	`}},
	{name: "env", dockerfiles: []string{`FROM base:1
	ENV A=1 B="two words" C=three\ words
	ENV OLD form with spaces
	ENV A=2 D=$A E=${A}x F=${NOPE:-default} G=${A:+set} H=\$A I='$A'
	ENV EMPTY=
	RUN echo "$A|$B|$C|$OLD|$D|$E|$F|$G|$H|$I" > /env
	`}},
	{name: "arg", args: []string{"--build-arg", "GIVEN=given", "--build-arg", "OVER=over", "--build-arg", "http_proxy=http://p"}, dockerfiles: []string{`ARG BASE=base:1
	FROM $BASE
	ARG GIVEN
	ARG OVER=default
	ARG DEFAULT=d
	ARG UNSET
	ARG BASE
	ENV FROMARG=$GIVEN-$OVER
	RUN echo "$GIVEN|$OVER|$DEFAULT|$UNSET|$BASE|$FROMARG|$http_proxy" > /arg
	ENV OVER=env
	RUN echo "$OVER" > /over
	`}},
	{name: "workdir", differs: "a WORKDIR belongs to USER, as with BuildKit; to the classic builder it is root's", dockerfiles: []string{`FROM base:1
	WORKDIR /a
	WORKDIR b
	WORKDIR c/../d
	ENV X=/x
	WORKDIR $X/y
	RUN pwd > /pwd
	USER joe
	WORKDIR /of/joe
	RUN pwd > /tmp/pwd && id > /tmp/id
	`}},
	{name: "user", dockerfiles: []string{`FROM base:1
	USER joe
	RUN touch /tmp/joe; id > /tmp/id; echo $HOME > /tmp/home
	USER joe:extra
	RUN id > /tmp/id2
	USER 12:34
	RUN touch /tmp/numbers && echo $HOME > /tmp/home2
	`}},
	{name: "config", dockerfiles: []string{`FROM base:1
	LABEL a=1 b="two words" "c.d"='quoted' e=line\
continued
	LABEL a=2
	LABEL old style label
	MAINTAINER Some One <a@b.example>
	EXPOSE 80 443/tcp 53/udp 7000-7002
	VOLUME /v1 /v2
	VOLUME ["/v3", "/v 4"]
	STOPSIGNAL SIGQUIT
	HEALTHCHECK --interval=5s --timeout=3s --start-period=1s --retries=4 CMD test -e /ok || exit 1
	ENTRYPOINT ["/entry", "arg"]
	CMD ["a", "b"]
	`}},
	{name: "commands", dockerfiles: []string{`FROM base:1
	ENTRYPOINT exec top -b
	CMD echo shell form
	HEALTHCHECK CMD ["curl", "-f"]
	`}},
	{name: "entrypoint-resets-cmd", dockerfiles: []string{`FROM base:1
	CMD ["of", "base"]
	`, `FROM before0
	ENTRYPOINT ["only"]
	HEALTHCHECK NONE
	`}},
	{name: "shell", dockerfiles: []string{`FROM base:1
	SHELL ["/bin/sh", "-exc"]
	RUN false || echo shelled > /shelled
	CMD run me
	ENTRYPOINT enter me
	`}},
	{name: "copy", differs: "set-user-id stays, as with BuildKit; the classic builder loses it in chown", files: []file{{name: "f", content: "f"}, {name: "g", content: "g", mode: 0o600}, {name: "x.sh", content: "#!/bin/sh\n", mode: 0o755},
		{name: "dir/a", content: "a"}, {name: "dir/sub/b", content: "b", mode: 0o444}, {name: "dir/empty/", mode: 0o700}, {name: "dir/link", link: "a"},
		{name: "dir/dangling", link: "/nowhere"}, {name: "sp ace", content: "s"}, {name: "setuid", content: "s", mode: 0o755 | os.ModeSetuid}},
		dockerfiles: []string{`FROM base:1
	COPY f /renamed
	COPY f g /both/
	COPY dir /copied
	COPY dir/ /copied/again/
	COPY *.sh /scripts/
	COPY ["sp ace", "/sp aced/"]
	COPY dir/sub/../a /up
	WORKDIR /w
	COPY f .
	COPY f ./deep/er/
	COPY . /all
	RUN rm /all/Dockerfile
	COPY setuid /
	COPY dir/link /
	`}},
	{name: "copy-chown", files: []file{{name: "f", content: "f"}, {name: "d/e", content: "e"}}, dockerfiles: []string{`FROM base:1
	COPY --chown=joe f /joe/f
	COPY --chown=joe:extra d /d
	COPY --chown=12:34 f /numbers/f
	COPY --chown=55 f /one
	USER joe
	COPY f /user
	ADD --chown=joe f /added
	`}},
	{name: "copy-over", files: []file{{name: "new/f", content: "new"}, {name: "new/d/in", content: "in"}, {name: "link", content: "through"}}, dockerfiles: []string{`FROM base:1
	RUN mkdir -p /o/d /real && echo old > /o/f && chmod 600 /o/f && chown 7:8 /o && chmod 711 /o && ln -s /real /o/tolink && ln -s /real/file /filelink && echo x > /real/file
	COPY new /o
	COPY link /o/tolink/
	COPY link /filelink
	`}},
	{name: "copy-from", differs: "WORKDIR of scratch is /, as with BuildKit", files: []file{{name: "f", content: "f"}}, dockerfiles: []string{`FROM base:1 AS one
	RUN mkdir /out && echo one > /out/a && ln -s a /out/l && chown -R 5:6 /out && chmod 640 /out/a
	FROM base:1 as Two
	RUN echo two > /two
	FROM scratch
	COPY --from=one /out /one
	COPY --from=one /out/l /followed
	COPY --from=1 /two /by/number
	COPY --from=two /two /by/name/
	COPY --from=base:1 /etc/passwd /by/image
	COPY --from=one --chown=9:9 /out/a /owned
	`}},
	{name: "target", args: []string{"--target", "middle"}, dockerfiles: []string{`FROM base:1 AS first
	RUN touch /first
	FROM first AS middle
	RUN touch /middle
	FROM middle AS last
	RUN exit 1
	`}},
	{name: "add", files: []file{{name: "f", content: "f"}, {name: "not.tar", content: "no archive at all"}, {name: "d/x", content: "x"}}, dockerfiles: []string{`FROM base:1
	ADD f /f
	ADD f not.tar d /many/
	ADD d /d
	`}},
	{name: "from-scratch", differs: "WORKDIR of scratch is /, as with BuildKit", files: []file{{name: "hello", content: "bin", mode: 0o755}}, dockerfiles: []string{`FROM scratch
	COPY hello /
	ENV A=b
	ENTRYPOINT ["/hello"]
	`}},
	{name: "onbuild", files: []file{{name: "app", content: "app"}}, dockerfiles: []string{`FROM base:1
	ONBUILD COPY app /app
	ONBUILD RUN echo triggered > /triggered
	ONBUILD ENV TRIGGER=1
	RUN touch /parent
	`, `FROM before0
	RUN test -e /app && touch /child
	ONBUILD RUN touch /grandchild
	`, `FROM before1
	CMD ["third"]
	`}},
	{name: "ignore", files: []file{{name: ".dockerignore", content: "# comment\n*.log\n!keep.log\nnode\n**/deep\n/rooted\na?c\ntrail/\n!node/kept\n.dockerignore\n"},
		{name: "x.log"}, {name: "keep.log"}, {name: "sub/x.log"}, {name: "node/gone"}, {name: "node/kept"}, {name: "s/t/deep/f"}, {name: "deep"}, {name: "rooted"},
		{name: "s/rooted"}, {name: "abc"}, {name: "abbc"}, {name: "trail/f"}, {name: "plain"}}, dockerfiles: []string{`FROM base:1
	COPY . /c/
	`}},
	{name: "ignore-dockerfile", files: []file{{name: ".dockerignore", content: "Dockerfile\n*\n!in\n"}, {name: "in"}, {name: "out"}}, dockerfiles: []string{`FROM base:1
	COPY . /c/
	`}},
	{name: "escape", dockerfiles: []string{"# escape=`\nFROM base:1\nRUN echo a ` \n  && echo b\\c > /b\nENV A=1`\n B=2\n"}},
	{name: "case-and-comments", dockerfiles: []string{`
	# comment before
	from base:1
	# comment
	run echo "# no comment" > /f   
	  # indented comment
	env   a   b
	cMd [ "x" ]
	`}},
	{name: "whiteouts", dockerfiles: []string{`FROM base:1
	RUN mkdir -p /d/sub && touch /d/a /d/b /d/sub/c /gone /swap && ln /d/a /d/hard
	RUN rm -r /d/sub /gone && rm /d/a && rm /swap && mkdir /swap && touch /swap/in
	RUN rm -r /d && mkdir /d && touch /d/fresh
	RUN rm /etc/group && mv /home/joe /home/moved
	`}},
	{name: "kinds", dockerfiles: []string{`FROM base:1
	RUN mkfifo /fifo && touch /h1 && ln /h1 /h2 && ln -s h1 /s && chmod 4755 /h1 && mkdir -m 1777 /sticky && mkdir -m 2755 /sgid && chown -h 3:4 /s
	RUN dd if=/dev/zero of=/sparse bs=1 count=1 seek=1000000 2>/dev/null && touch "/$(printf 'n%.0s' $(seq 255))" && touch /ünïcödé && touch "/$(printf 'new\nline')"
	`}},
	{name: "volume-keeps", differs: "what RUN writes into a volume stays, as with BuildKit", dockerfiles: []string{`FROM base:1
	RUN mkdir /v && touch /v/before
	VOLUME /v
	RUN touch /v/lost /kept
	`}},
	{name: "many-layers", dockerfiles: []string{manyLayers(110)}},
	{name: "empty-layers", dockerfiles: []string{`FROM base:1
	RUN true
	RUN touch /a && rm /a
	WORKDIR /
	RUN true
	`}},

	{name: "bad-instruction", fails: true, dockerfiles: []string{`FROM base:1
	RUN true

	FRUM nowhere
	`}},
	{name: "bad-no-from", fails: true, dockerfiles: []string{`RUN true
	`}},
	{name: "bad-empty", fails: true, dockerfiles: []string{"# nothing\n"}},
	{name: "bad-run", fails: true, dockerfiles: []string{`FROM base:1
	RUN echo before; exit 42
	`}},
	{name: "bad-copy-missing", fails: true, dockerfiles: []string{`FROM base:1
	COPY nope /
	`}},
	{name: "bad-copy-outside", fails: true, dockerfiles: []string{`FROM base:1
	COPY ../../etc/passwd /p
	`}},
	{name: "bad-copy-many", fails: true, files: []file{{name: "a"}, {name: "b"}}, dockerfiles: []string{`FROM base:1
	COPY a b /c
	`}},
	{name: "bad-stage", fails: true, dockerfiles: []string{`FROM base:1
	COPY --from=5 /a /b
	`}},
	{name: "bad-env", fails: true, dockerfiles: []string{`FROM base:1
	ENV A
	`}},
	{name: "bad-flag", fails: true, dockerfiles: []string{`FROM base:1
	COPY --nope=1 a b
	`}},
	{name: "bad-user", fails: true, dockerfiles: []string{`FROM base:1
	USER nobody-here
	RUN true
	`}},
	{name: "bad-expose", fails: true, dockerfiles: []string{`FROM base:1
	EXPOSE 99999999
	`}},
	{name: "bad-onbuild", fails: true, dockerfiles: []string{`FROM base:1
	ONBUILD FROM base:1
	`}},
	{name: "bad-onbuild-twice", fails: true, dockerfiles: []string{`FROM base:1
	ONBUILD ONBUILD RUN true
	`}},
	{name: "bad-target", fails: true, args: []string{"--target", "nope"}, dockerfiles: []string{`FROM base:1
	`}},
	{name: "bad-base-name", fails: true, dockerfiles: []string{`FROM BASE:1
	`}},
	{name: "bad-healthcheck", fails: true, dockerfiles: []string{`FROM base:1
	HEALTHCHECK --interval=x CMD true
	`}},
	{name: "bad-stopsignal", fails: true, dockerfiles: []string{`FROM base:1
	STOPSIGNAL SIGNOPE
	`}},
	{name: "bad-arguments", fails: true, dockerfiles: []string{`FROM base:1 AS
	`}},
	{name: "bad-chown", fails: true, files: []file{{name: "a"}}, dockerfiles: []string{`FROM base:1
	COPY --chown=nobody-here a /a
	`}},
	{name: "bad-arg-unused", args: []string{"--build-arg", "NOTHING=1"}, dockerfiles: []string{`FROM base:1
	RUN true
	`}},
}

func manyLayers(n int) string {
	df := "FROM base:1\nRUN mkdir /l\n"
	for i := range n {
		df += "RUN echo " + string(rune('a'+i%26)) + " >> /l/log && touch /l/" + string(rune('a'+i%26)) + "\n"
	}
	return df
}
