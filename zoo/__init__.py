"""Many architectures with random weights, and one check that shrinking each gives exactly what masking it gives.

    make zoo                                         everything, in an environment of its own (.venv-zoo)
    .venv-zoo/bin/python -m zoo resnet18 llama       one line for each that is named; nothing named: all
    .venv-zoo/bin/python -m zoo timm:ghostnet_100    any other architecture of timm or torchvision

`plain` needs torch only; the other collections need the library that they are named after.
"""
