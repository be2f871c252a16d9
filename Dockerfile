# CPU by default. For CUDA: docker build --build-arg EXTRAS=torch, then docker run --gpus all.
ARG PYTHON=3.11

FROM python:${PYTHON}-slim AS build
ARG EXTRAS=
WORKDIR /src
RUN python -m venv /opt/venv
# The dependencies alone first: this layer outlives changes of our code.
COPY pyproject.toml requirements.lock README.md LICENSE ./
RUN /opt/venv/bin/pip install --no-cache-dir --constraint requirements.lock \
    ".${EXTRAS:+[$EXTRAS]}"
COPY model model
COPY app app
RUN /opt/venv/bin/pip install --no-cache-dir --no-deps --force-reinstall .

FROM python:${PYTHON}-slim
RUN useradd --uid 10001 --no-create-home --shell /usr/sbin/nologin perceiver
COPY --from=build /opt/venv /opt/venv
COPY weights/perceiver-mnist /srv/weights/perceiver-mnist
WORKDIR /srv
ENV PATH=/opt/venv/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    PERCEIVER_HOST=0.0.0.0 \
    PERCEIVER_PORT=8000
USER 10001
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=3s --start-period=20s --retries=3 \
    CMD ["python", "-m", "app.healthcheck"]
ENTRYPOINT ["python", "-m", "app"]
