FROM corpus/busybox
COPY a.txt /
