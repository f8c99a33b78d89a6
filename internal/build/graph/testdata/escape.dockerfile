# escape=`
FROM debian:12
RUN echo one `
    two
ENV X=`$Y
