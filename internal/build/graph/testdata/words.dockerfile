FROM debian:12
MAINTAINER Jane <j@example.com>
LABEL a=b "c d"="e f"
LABEL old style
ENV A=1 B="two words" C=${A:-x}${Z:+no}
ENV D hello $A
ARG E=$A$B
ARG F
ENV A=2 G=$A
WORKDIR rel
WORKDIR /abs/$A
WORKDIR sub
USER app:app
SHELL ["/bin/bash", "-c"]
RUN echo $A \
    # a comment
    && echo done
RUN ["/bin/true", "$A"]
VOLUME /data ["x"]
VOLUME ["/v1", "/v2"]
EXPOSE $A 8080:80
STOPSIGNAL SIGQUIT
HEALTHCHECK --interval=5s --retries=3 CMD curl -f http://localhost/
CMD echo hi
ENTRYPOINT exec top
ONBUILD RUN touch /x
ADD --chown=a:b x.tar y* /dst/
ADD --checksum=sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855 https://example.com/f /f
