# CPU image with the library and its development tools.
#   docker build -t recon .
#   docker run --rm -v "$PWD/outputs:/recon/outputs" recon            # make demo
#   docker run --rm recon make test
FROM python:3.11-slim

# A C compiler builds the fast point operations; make runs the README's commands.
RUN apt-get update \
    && apt-get install --yes --no-install-recommends gcc git libc6-dev make \
    && rm -rf /var/lib/apt/lists/*

# CPU builds of torch and torchvision, without the CUDA libraries.
ENV PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu

WORKDIR /recon
COPY . .
RUN make install

CMD ["make", "demo"]
