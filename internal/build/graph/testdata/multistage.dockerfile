ARG GO=1.26
FROM golang:${GO} AS build
ARG TARGETARCH
ARG VERSION=dev
WORKDIR /src
COPY go.mod go.sum ./
RUN go mod download
COPY . .
RUN GOARCH=$TARGETARCH go build -ldflags "-X v=$VERSION" -o /out/app .

FROM nothing:needed AS unused
RUN false

FROM scratch
COPY --from=build --chown=1000:1000 --chmod=755 /out/app /app
COPY --from=0 /src/LICENSE /
COPY --from=busybox:1 /bin/sh /bin/
USER 1000
EXPOSE 80 443/tcp 5000-5002/udp
ENTRYPOINT ["/app"]
