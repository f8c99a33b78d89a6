FROM debian:12
RUN <<EOF
echo one
echo two
EOF
RUN <<EOF
#!/usr/bin/env python3
print("x")
EOF
RUN cat <<A <<B > /out
a
A
b
B
ENV N=v
COPY <<one <<"two" /dir/
n is $N
one
n is $N
two
