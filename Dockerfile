# syntax=docker/dockerfile:1
# Two stages: what builds the wheel and what is only needed to install it stays behind.
ARG PYTHON=python:3.11.14-slim-bookworm

FROM ${PYTHON} AS build
# The C of bcrypt in lanes; without a compiler the service does the same with the bcrypt package, half as fast.
RUN apt-get update && apt-get install --yes --no-install-recommends gcc libc6-dev
WORKDIR /src
RUN python -m venv --without-pip /opt/regsvc
COPY pyproject.toml README.md LICENSE ./
COPY regsvc regsvc
COPY sql sql
ARG EXTRAS=argon2,otlp,redis
RUN python -m pip --python /opt/regsvc/bin/python install --no-cache-dir ".${EXTRAS:+[$EXTRAS]}"

FROM ${PYTHON}
RUN useradd --uid 10001 --user-group --no-create-home --shell /usr/sbin/nologin regsvc \
 && install --directory --owner=regsvc --group=regsvc --mode=0700 /var/lib/regsvc
COPY --from=build /opt/regsvc /opt/regsvc
ENV PATH=/opt/regsvc/bin:$PATH \
    REGSVC_HOST=0.0.0.0 \
    REGSVC_DATA_DIR=/var/lib/regsvc
USER regsvc
WORKDIR /var/lib/regsvc
VOLUME /var/lib/regsvc
EXPOSE 8000
# PID 1 is the supervisor itself: it hears SIGTERM, drains, and takes orphans away.
STOPSIGNAL SIGTERM
# Whether requests should come here. An instance without the role http has no port to ask: switch it off there.
HEALTHCHECK --interval=5s --timeout=3s --start-period=20s --retries=3 \
  CMD ["python", "-I", "-c", "import http.client, os, sys; door = http.client.HTTPConnection('127.0.0.1', int(os.environ.get('REGSVC_PORT') or 8000), timeout=2); door.request('GET', '/readyz'); sys.exit(door.getresponse().status != 200)"]
ENTRYPOINT ["regsvc"]
CMD ["serve"]
