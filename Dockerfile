# syntax=docker/dockerfile:1
# Two stages: what builds the wheel and what is only needed to install it stays behind.
FROM python:3.11-slim AS build
WORKDIR /src
RUN python -m venv /opt/regsvc
COPY pyproject.toml README.md LICENSE ./
COPY regsvc regsvc
COPY sql sql
RUN /opt/regsvc/bin/pip install --no-cache-dir .

FROM python:3.11-slim
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
HEALTHCHECK --interval=5s --timeout=3s --start-period=20s --retries=3 \
  CMD ["python", "-I", "-c", "import http.client, os, sys; door = http.client.HTTPConnection('127.0.0.1', int(os.environ.get('REGSVC_PORT') or 8000), timeout=2); door.request('GET', '/readyz'); sys.exit(door.getresponse().status != 200)"]
ENTRYPOINT ["regsvc"]
CMD ["serve"]
