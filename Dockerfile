# On CPUs:
#   docker build -t rewrite .
#   docker run --rm -v "$PWD/runs:/runs" rewrite
# trains, explains, simulates, evaluates and reports in runs/default. Other words after the image's name are another
# command: `docker run --rm -v "$PWD/runs:/runs" rewrite status`. What the hub gives is kept in runs/.hub.
FROM python:3.11-slim

WORKDIR /source
COPY constraints.txt ./
# torch first, from the index of its CPU builds: the one on PyPI brings gigabytes of CUDA.
RUN pip install --no-cache-dir --index-url https://download.pytorch.org/whl/cpu "$(grep '^torch==' constraints.txt)"
COPY pyproject.toml README.md LICENSE ./
COPY data data
COPY prompts prompts
COPY rewrite rewrite
RUN pip install --no-cache-dir --constraint constraints.txt '.[openai,gguf,tune]'

# The default run folder, runs/default, is then in the volume; any user may run this (`docker run --user`).
WORKDIR /
ENV HF_HOME=/runs/.hub MPLCONFIGDIR=/tmp/matplotlib
VOLUME /runs
ENTRYPOINT ["rewrite"]
CMD ["run"]
