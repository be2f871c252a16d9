# Serves on a CPU without PyTorch. With PyTorch and CUDA: docker build --build-arg EXTRAS=torch,
# then docker run --gpus all.
ARG PYTHON=3.11

FROM python:${PYTHON}-slim AS build
ARG EXTRAS=
WORKDIR /src
# hadolint ignore=DL3008
RUN apt-get update && apt-get install --yes --no-install-recommends binutils \
    && rm -rf /var/lib/apt/lists/*
# The base's pip installs into an environment that has none itself.
RUN python -m venv --without-pip /opt/venv
# The dependencies alone first: this layer outlives changes of our code.
COPY pyproject.toml requirements.lock README.md LICENSE ./
# What serving never reads goes: packages' tests, symbols for debuggers, and what ONNX Runtime has
# for C programs and for those who make models.
RUN pip --python /opt/venv/bin/python install --no-cache-dir --constraint requirements.lock \
        ".${EXTRAS:+[$EXTRAS]}" \
    && find /opt/venv -depth -type d -name tests -exec rm -r {} + \
    && for folder in PIL httptools uvloop; do \
        find /opt/venv/lib/python*/site-packages/$folder -name '*.so' \
            -exec strip --strip-debug {} +; done \
    && rm -r /opt/venv/lib/python*/site-packages/onnxruntime/capi/libonnxruntime.so.* \
        /opt/venv/lib/python*/site-packages/onnxruntime/quantization \
        /opt/venv/lib/python*/site-packages/onnxruntime/tools \
        /opt/venv/lib/python*/site-packages/onnxruntime/transformers
COPY model model
COPY app app
RUN pip --python /opt/venv/bin/python install --no-cache-dir --no-deps --force-reinstall .

FROM python:${PYTHON}-slim
RUN useradd --uid 10001 --no-create-home --no-log-init --shell /usr/sbin/nologin perceiver
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
