FROM withtriggers
RUN last
