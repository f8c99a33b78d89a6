FROM debian:12 AS a
FROM a
ARG http_proxy
WORKDIR /w
RUN --mount=type=cache,target=/root/.cache,id=x,sharing=locked --mount=type=bind,source=src,target=in --mount=type=bind,from=a,target=/a --mount=type=tmpfs,target=/t,size=1m --network=none make
